"""A method is found by its name and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import pipeline
from pipeline.core import methods
from pipeline.core.methods import Use
from pipeline.errors import Refused
from pipeline.kinds.scorer import Scorer
from pipeline.kinds.selector import Selector

PACKAGE = Path(pipeline.__file__).parent
MINE = '''
from pipeline.kinds.scorer import scorer


@scorer(reads=("content",))
def length(*, least: int = 3):
    """Characters of an answer.

    Paper: none.
    Differs: nothing.
    """
    return lambda rows: {"score": [None if t is None else float(len(t)) for t in rows["content"].to_pylist()]}
'''
USE = """
import json
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pathlib import Path

given = load(Path("params.yaml"))
given["score"]["agreement"] = {"of": "responses/train", "use": "mine.length", "least": 5}
resolved = resolve(given)
chosen = resolved.instances["score@agreement"]
print(json.dumps([chosen.params.model_dump(), chosen.code]))
"""


def test_every_kind_has_methods_that_can_be_found() -> None:
    for kind in methods.KINDS:
        assert methods.shipped(kind), kind
        for name in methods.shipped(kind):
            method = methods.find(kind, name)
            assert method.module.rsplit(".", 1)[-1] == name.split(".")[0]


@pytest.mark.parametrize("kind", methods.KINDS)
def test_a_kind_is_a_file_with_its_marker_and_its_type(kind: str) -> None:
    """So that a new kind is one file and the folder of its families, and `Use[Type]` says the kind."""
    module = importlib.import_module(f"pipeline.kinds.{kind}")
    assert callable(getattr(module, kind))
    assert Use[getattr(module, kind.capitalize())].kind() == kind
    assert (PACKAGE / methods.KINDS[kind] / "__init__.py").exists()


def test_what_is_filled_in_is_nothing_of_the_users() -> None:
    given = {"name": "consistency.agreement", "arguments": {}}
    assert Use[Scorer].model_validate(given).arguments == {"normalise": "none"}
    assert given == {"name": "consistency.agreement", "arguments": {}}


def test_a_method_is_made_with_its_arguments() -> None:
    chosen = Use[Selector](name="mixture.coverage", arguments={"by": "score", "prefer": 1})
    assert chosen.arguments == {"by": "score", "prefer": 1.0} and callable(chosen.build())


def test_an_unknown_name_lists_what_there_is_and_the_nearest() -> None:
    with pytest.raises(Refused) as refused:
        methods.find("scorer", "consistency.agrement")
    text = str(refused.value)
    assert "did you mean consistency.agreement?" in text
    assert all(name in text for name in methods.available("scorer"))


def test_a_method_of_another_kind_is_not_found() -> None:
    with pytest.raises(ValidationError, match="no selector is called"):
        Use[Selector].model_validate({"name": "consistency.agreement"})


def test_arguments_are_checked_and_filled() -> None:
    filled = Use[Scorer].model_validate({"name": "consistency.agreement"}).arguments
    assert filled == methods.find("scorer", "consistency.agreement").arguments().model_dump(mode="json")
    with pytest.raises(ValidationError, match="has no parameter 'normalize'; did you mean normalise\\? It takes"):
        Use[Scorer].model_validate({"name": "consistency.agreement", "arguments": {"normalize": "none"}})
    with pytest.raises(ValidationError, match="normalise"):
        Use[Scorer].model_validate({"name": "consistency.agreement", "arguments": {"normalise": "nonsense"}})


def test_a_lazy_module_is_imported_when_it_is_used() -> None:
    colours = methods.lazy("colorsys")
    assert isinstance(colours, type(sys)) and colours.rgb_to_hsv(1, 1, 1) == (0.0, 0.0, 1)


def test_a_users_own_method_needs_no_registration(tmp_path: Path) -> None:
    """One file in the folder of its kind: it is found, its arguments are checked, its code is identity."""
    shutil.copytree(PACKAGE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(PACKAGE.parent / name, tmp_path / name)
    shutil.copytree(PACKAGE.parent / "data" / "embedded", tmp_path / "data" / "embedded")
    mine = tmp_path / "pipeline" / "scorers" / "mine.py"

    def resolved() -> tuple[dict, str]:
        done = subprocess.run(
            [sys.executable, "-c", USE], cwd=tmp_path, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        params, code = json.loads(done.stdout)
        return params, code

    mine.write_text(MINE, "utf-8")
    params, before = resolved()
    assert params["use"] == {"name": "mine.length", "arguments": {"least": 5}}
    mine.write_text(MINE.replace("Characters", "Letters"), "utf-8")
    assert resolved()[1] == before
    mine.write_text(MINE.replace("float(len(t))", "float(len(t.split()))"), "utf-8")
    assert resolved()[1] != before
