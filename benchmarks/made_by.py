"""What a result of training was made by; a result whose own is another than that of now is out of date.

Edits that change nothing do not count: the loop, the selections and the objectives of the default run are known by the
golden training, which `make test` holds the code to, and any other method by what it says, with what it needs of its
module.
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
    ours, default = methods(params), methods(load(ROOT / "params.yaml"))
    return {
        "training": training.digest(),
        "params": ids.digest({section: entries for section, entries in params.items() if section not in BESIDE}),
        "methods": sorted(identity.says(*method) for method in ours - default),
    }


def methods(params: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The module and the function of all methods that are named."""
    instances = resolve(params).instances.values()
    used = (use.method for instance in instances for use in instance.params.methods())
    return {(method.module, method.name.partition(".")[2]) for method in used}
