"""Laws of judges: an answer's score is of the verdicts on it alone, and what is no verdict decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.contracts import SCORES
from pipeline.core.methods import Method
from pipeline.kinds.judge import Judge, Verdict
from pipeline.laws.law import arguments, build, must
from pipeline.laws.scorer import macros, same

Scores = dict[str, dict[str, Any]]
# Short answers of all kinds of questions, and some of none: a judge takes those that it knows.
SAID = ("1", "2", "2.5", "5", "A", "B", "C", "A", "B", "yes", "no", "99", "0", "", None, None)


@dataclass(frozen=True)
class Case:
    """A judge with arguments."""

    method: Method
    arguments: dict[str, Any]
    judge: Judge

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    def scores(self, verdicts: Sequence[Verdict]) -> Scores:
        """Answer to row of the table `scores`, exactly as the stage would write it."""
        found = self.judge(verdicts)
        batch = SCORES.rows({"response_id": key, "prompt_id": "p", **row} for key, row in sorted(found.items()))
        return {row["response_id"]: row for row in batch.to_pylist()}


def cases(method: Method) -> Iterator[Case]:
    """A judge with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


def verdicts_for(method: Method) -> list[Verdict]:
    """What was said to questions of the judge's kind: about one answer each, or two in both orders; some said nothing
    that can be read, and some pairs were asked about in one order alone."""
    draw, found = np.random.default_rng(7), []
    names = [f"r{i:02d}" for i in range(16)]
    pairs = [(one, names[(i + j) % len(names)]) for i, one in enumerate(names) for j in (1, 5)]
    shown: list[tuple[str, ...]] = [(name,) for name in names * 2]
    if method.traits["verdict"] != "points":
        shown = [about for i, pair in enumerate(pairs) for about in (pair, pair[::-1])[: 1 if i % 9 == 8 else 2]]
    for i, about in enumerate(shown):
        said = [SAID[draw.integers(len(SAID))] for _ in range(1 + i % 3)]
        found.append(Verdict(about, (None,) if i % 7 == 6 else tuple(said)))
    return found


def order_means_nothing(case: Case) -> None:
    """The order of the questions, and of the samples of one, means nothing. Count, and look at no places but those in
    `about`."""
    verdicts = verdicts_for(case.method)
    moved = [replace(verdict, said=verdict.said[::-1]) for verdict in verdicts[::-1]]
    same(case.scores(moved), case.scores(verdicts), "in another order")


def names_mean_nothing(case: Case) -> None:
    """Answers of other names have the same scores. Decide nothing by an id, not even a tie."""
    verdicts = verdicts_for(case.method)
    other = {name: f"z{99 - int(name[1:])}" for verdict in verdicts for name in verdict.about}
    moved = case.scores([replace(v, about=tuple(other[name] for name in v.about)) for v in verdicts])
    found = {name: {**moved[new], "response_id": name} for name, new in other.items() if new in moved}
    same(found, case.scores(verdicts), "under another name")


def only_answers_that_were_asked_about(case: Case) -> None:
    """Every answer that was asked about has a row, no other has, and nothing is said of nothing."""
    verdicts = verdicts_for(case.method)
    asked = {name for verdict in verdicts for name in verdict.about}
    must(set(case.judge(verdicts)) == asked, "its rows are not those of the answers that were asked about")
    must(not case.judge([]), "it says something of nothing")


def what_is_unread_decides_nothing(case: Case) -> None:
    """A sample that is no verdict changes no score, and an answer of which nothing could be read has none. Count it in
    `asked` and in `unread`; it is no loss, and no lowest mark."""
    verdicts = verdicts_for(case.method)
    more = [replace(verdict, said=(*verdict.said, None, "I would rather not say")) for verdict in verdicts]
    with_more, without = case.scores(more), case.scores(verdicts)
    for key, row in without.items():
        seen = with_more[key]["score"]
        must(
            seen == row["score"], f"{key} has the score {seen} instead of {row['score']} with samples that say nothing"
        )
    nothing = case.scores([replace(verdict, said=(None, "")) for verdict in verdicts])
    for key, row in nothing.items():
        must(row["score"] is None, f"{key} has the score {row['score']}, and nothing could be read")
        given = dict(row["quantities"])
        must(0 < given.get("asked", 0) == given.get("unread"), f"{key} has {given}, and nothing could be read")


def quantities_make_the_score(case: Case) -> None:
    """Every number is finite, and the quantities make the score, by the SQL of its trait `score`. Declare
    `@judge(..., score="sum / n")`, and give these quantities with every score."""
    formula, found = case.method.traits.get("score"), case.scores(verdicts_for(case.method))
    must(formula is not None, "it declares no `score`")
    must(any(row["score"] is not None for row in found.values()), "no answer has a score")
    for key, row in found.items():
        given: Mapping[str, float] = dict(row["quantities"])
        must(bool(np.isfinite(list(given.values())).all()), f"{key} has {given}")
        if row["score"] is not None:
            columns = ", ".join(f'{value!r}::DOUBLE AS "{name}"' for name, value in given.items())
            (made,) = macros().execute(f"SELECT ({formula})::DOUBLE FROM (SELECT {columns})").fetchall()[0]
            must(made == row["score"], f"{key} has the score {row['score']}, and {formula} of {given} is {made}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (
        order_means_nothing,
        names_mean_nothing,
        only_answers_that_were_asked_about,
        what_is_unread_decides_nothing,
        quantities_make_the_score,
    ),
    lambda case: True,
)
