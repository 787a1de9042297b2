"""What a result of training was made by; a result whose own is another than that of now is out of date.

Edits that change nothing do not count: the loop, the selections and the objectives of the default run are known by the
golden training, which `make test` holds the code to, and any other method by what its module says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core import identity
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.tables import ids
from tests.golden import training

ROOT = Path(__file__).parents[1]
# What they say changes no student and no answer of one.
BESIDE = ("run", "watch", "read", "quality", "gaps", "report")


def made_by(params: Mapping[str, Any]) -> dict[str, object]:
    """The golden training, the parameters, and the methods that the default run does not use, each as a hash."""
    ours, default = modules(params), modules(load(ROOT / "params.yaml"))
    return {
        "training": training.digest(),
        "params": ids.digest({section: entries for section, entries in params.items() if section not in BESIDE}),
        "methods": sorted(map(identity.says, ours - default)),
    }


def modules(params: Mapping[str, Any]) -> set[str]:
    """The modules of all methods that are named."""
    instances = resolve(params).instances.values()
    return {use.method.module for instance in instances for use in instance.params.methods()}
