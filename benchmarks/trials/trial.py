"""What a trial is."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import identity
from pipeline.core.methods import find
from pipeline.tables import ids

FIGURES = tuple[float, float]


@dataclass(frozen=True)
class Trial:
    """A claim about methods, with what shows it: (kind, name) of each, first that which the claim is about; `after` is
    what it is called where it was published."""

    methods: Sequence[tuple[str, str]]
    after: str
    control: str
    measure: str
    less: bool
    run: Callable[[int], FIGURES]

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def claim(self) -> str:
        return " ".join(inspect.cleandoc(self.run.__doc__ or "").split())

    def made_by(self) -> dict[str, object]:
        """What its result hangs on, as hashes: the trial's file, what it stands on, and the methods."""
        files = (Path(inspect.getfile(self.run)), Path(__file__).with_name("simulated.py"))
        return {
            "trial": [ids.digest(ast.unparse(ast.parse(file.read_text("utf-8")))) for file in files],
            "methods": [identity.says(find(kind, name).module, name.partition(".")[2]) for kind, name in self.methods],
        }


TRIALS: dict[str, Trial] = {}


def trial(*methods: str, after: str, control: str, measure: str, less: bool = False) -> Callable[[Any], Any]:
    """A function is a trial of methods such as `selector rank.top`; `less` where a lower figure is the better one."""

    def declare(run: Callable[[int], FIGURES]) -> Callable[[int], FIGURES]:
        pairs = [(kind, name) for kind, _, name in (method.partition(" ") for method in methods)]
        TRIALS[run.__name__] = Trial(pairs, after, control, measure, less, run)
        return run

    return declare


def built(kind: str, name: str, **arguments: object) -> Any:
    """A method, made with arguments that are checked as those of `params.yaml` are."""
    method = find(kind, name)
    return method.factory(**method.arguments.model_validate(arguments).model_dump())
