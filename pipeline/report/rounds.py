"""The history of rounds: what every student of a chain brought over the one that it began as."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.report.arms import Lineage
from pipeline.report.results import Answered, Results
from pipeline.report.statistics import Interval

NUMBERED = re.compile(r"(\w+)_(\d+)")


@dataclass(frozen=True)
class Round:
    """A student, how good it is, and by how much it is better than the one before; that is None of what the first round
    begins with."""

    number: int
    model: str
    accuracy: Interval
    gain: Answered | None = None


@dataclass(frozen=True)
class History:
    """The rounds of a chain of trainings: `kd` for kd_1, kd_2, and so on."""

    name: str
    rounds: tuple[Round, ...]


def histories(lineage: Lineage, results: Results) -> list[History]:
    """Every chain in which <name>_<n> began as <name>_<n - 1>, as far as its students were judged beside each other."""
    gains = {a.comparison.first.members[0].model: a for a in results.answers if a.comparison.kind == "base"}
    found: dict[str, dict[int, Round]] = {}
    for model, answered in gains.items():
        match, base = NUMBERED.fullmatch(model), lineage.arms[model].base
        if match and base == f"{match[1]}_{int(match[2]) - 1}":
            both = (answered.comparison.first, answered.comparison.second)
            first, before = (results.judged[line.name] for line in both)
            chain, number = found.setdefault(match[1], {}), int(match[2])
            chain[number] = Round(number, model, first.accuracy, answered)
            chain.setdefault(number - 1, Round(number - 1, base, before.accuracy))
    return [History(name, tuple(chain[n] for n in sorted(chain))) for name, chain in sorted(found.items())]
