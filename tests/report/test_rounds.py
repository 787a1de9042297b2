"""The history of rounds: only what went on from the round before is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.report import charts
from pipeline.report.arms import Arm, Comparison, Evaluation, Line, Lineage
from pipeline.report.results import Answered, Results
from pipeline.report.rounds import histories
from pipeline.report.statistics import Interval

# Student -> what it began as.
BEGAN = {"kd_1": "kd_0", "kd_2": "kd_1", "other_1": "base", "kd_9": "kd_2", "sft": "kd_1"}
ACCURACY = {name: Interval(n / 10, n / 10 - 0.05, n / 10 + 0.05) for n, name in enumerate(["kd_0", *BEGAN, "base"])}


def line(model: str) -> Line:
    return Line(model, (Evaluation(model, model, "bench"),))


def lineage() -> Lineage:
    rest: Any = (1, (), (), False, (), (), (), (), True, 1.0, {})
    arms = {name: Arm(name, name, rest[0], base, *rest[1:]) for name, base in BEGAN.items()}
    return Lineage({}, (), arms)


def results() -> Results:
    gain = Interval(0.1, 0.05, 0.15)
    answers = tuple(Answered(Comparison("base", line(m), line(base)), gain, 100, 0.01) for m, base in BEGAN.items())
    judged: Any = {name: SimpleNamespace(accuracy=accuracy) for name, accuracy in ACCURACY.items()}
    return Results(judged, answers, {})


def test_a_chain_begins_with_what_its_first_round_began_as() -> None:
    [history] = histories(lineage(), results())
    assert history.name == "kd" and [r.model for r in history.rounds] == ["kd_0", "kd_1", "kd_2"]
    assert [r.accuracy for r in history.rounds] == [ACCURACY[r.model] for r in history.rounds]
    assert [r.gain is None for r in history.rounds] == [True, False, False]


def test_a_chart_has_every_round_with_its_interval() -> None:
    rows = charts.rounds(histories(lineage(), results())).spec["data"]["values"]
    assert [(row["name"], row["round"]) for row in rows] == [("kd", 0), ("kd", 1), ("kd", 2)]
    assert all(row["low"] < row["accuracy"] < row["high"] for row in rows)
