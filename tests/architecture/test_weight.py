"""What a start costs: reading the parameters and naming every method loads nothing heavy."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.stage import STAGES, stage_named

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch", "transformers", "accelerate", "peft", "datasets", "huggingface_hub", "pandas", "scipy", "polars",
    "great_expectations", "plotly", "sympy", "math_verify", "aiohttp", "prefect", "dvc", "pyarrow.dataset", "PIL",
)  # fmt: skip
RESOLVE = f"""
import sys
from pathlib import Path
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
resolve(load(Path("params.yaml")))
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
EVERYTHING = f"""
import sys
from pipeline.core.stage import STAGES
from pipeline.core import methods
from pipeline.core.stage import stage_named
for stage in STAGES:
    stage_named(stage)
for kind in methods.KINDS:
    for name in methods.shipped(kind):
        methods.find(kind, name)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""


def loaded(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("program", [RESOLVE, EVERYTHING], ids=["the plan", "every stage and method"])
def test_naming_loads_nothing_heavy(program: str) -> None:
    assert loaded(program) == set()


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_says_it_imports_exists(stage: str) -> None:
    assert [name for name in stage_named(stage).imports if importlib.util.find_spec(name) is None] == []
