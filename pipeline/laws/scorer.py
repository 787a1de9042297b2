"""Laws of scorers: a score hangs on an answer and its siblings, not on order nor parts, and its quantities make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import Method
from pipeline.kinds.scorer import Learner, Scorer
from pipeline.laws.law import arguments, build, must
from pipeline.tables.sql import opened

Scores = dict[str, dict[str, Any]]
TEXT = "so it goes so it goes #{}"
CODE = "```python\nx = {}\n```\nIt holds that\n```python\nassert x != {}\n```"
# By sample: likely, less so, none, an unknown one, and one that underflows.
LOGPROBS: tuple[list[float | None], ...] = ([-0.1, -0.2], [-1.5], [], [None, -1.0], [-900.0, -700.0])


@dataclass(frozen=True)
class Case:
    """A scorer with arguments."""

    method: Method
    arguments: dict[str, Any]
    scorer: Scorer

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    def scores(self, rows: pa.Table, seen: pa.Table | None = None) -> Scores:
        """Response id to row of the table `scores`, exactly as the stage would write it; one that learns does so from
        `seen`, the whole table."""
        keys = {"response_id": rows["response_id"], "prompt_id": rows["prompt_id"]}
        reads = self.method.traits["reads"]
        scorer = self.scorer
        if self.method.traits.get("learns"):
            scorer = cast(Learner, scorer)([labelled(rows if seen is None else seen).select(reads)])
        batch = SCORES.batch(**keys, **scorer(labelled(rows).select(reads)))
        return {row["response_id"]: row for row in batch.to_pylist()}


def cases(method: Method) -> Iterator[Case]:
    """A scorer with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


@cache
def responses() -> pa.Table:
    """Answers of two entries to twelve prompts: some unread, some failed, some prompts without a reference."""
    random = np.random.default_rng(5)
    rows: list[Mapping[str, object]] = []
    for prompt in range(12):
        for entry in ("teacher", "base"):
            for sample in range(5):
                failed = random.random() < 0.1
                answer = str(random.integers(3)) if not failed and random.random() < 0.8 else None
                finish_reason = "error" if failed else str(random.choice(["stop", "length"]))
                rows.append({
                    "response_id": f"{prompt}-{entry}-{sample}",
                    "request_id": "r",
                    "prompt_id": f"p{prompt}",
                    "messages": [{"role": "user", "content": f"How does it go, {prompt}?"}],
                    "domain": "d",
                    "verifier": None if prompt == 3 else "text.marked",
                    "reference": None if prompt == 4 else "1",
                    "entry": entry,
                    "model_id": entry,
                    "sample": sample,
                    "seed": sample,
                    "logprobs": None if failed else LOGPROBS[sample],
                    "reasoning": None if failed else f"so I think of {answer}",
                    "content": None if failed else (CODE if prompt < 4 else TEXT).format(answer, sample % 2),
                    "answer": answer,
                    "finish_reason": finish_reason,
                    "error": "no route" if failed else None,
                    "prompt_tokens": 8,
                    "completion_tokens": None if failed else 6 + sample,
                    "attempts": 1,
                })  # fmt: skip
    return pa.Table.from_batches([RESPONSES.rows(rows)])


def labelled(rows: pa.Table) -> pa.Table:
    """Answers of which people labelled all but the last sample."""
    label = pc.if_else(pc.less(rows["sample"], 4), pc.bit_wise_and(rows["sample"], 1), pa.scalar(None, pa.int64()))
    note = pc.if_else(pc.is_valid(label), "by hand", pa.scalar(None, pa.string()))
    return rows.append_column("label", pc.cast(label, pa.float64())).append_column("note", note)


def order_means_nothing(case: Case) -> None:
    """The order of the rows means nothing. Find siblings by `prompt_id` and `entry`, not by their places."""
    rows = responses()
    shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
    same(case.scores(shuffled), case.scores(rows), "in another order")


def parts_mean_nothing(case: Case) -> None:
    """Scoring part by part is scoring the whole, and a part may be empty. Siblings always lie together: look at nothing
    beyond them, and take no mean of all rows."""
    rows = responses()
    half = pa.array([int(prompt[1:]) % 2 == 0 for prompt in rows["prompt_id"].to_pylist()])
    parts = [rows.filter(half), rows.filter(pc.invert(half)), rows.slice(0, 0)]
    same({key: row for part in parts for key, row in case.scores(part, rows).items()}, case.scores(rows), "in parts")


def another_entrys_answers_change_nothing(case: Case) -> None:
    """The answers of another entry change nothing. Read `entry`, and compare answers of one entry only."""
    rows = responses()
    alone = case.scores(rows.filter(pc.equal(rows["entry"], "teacher")))
    same(alone, {key: row for key, row in case.scores(rows).items() if key in alone}, "beside another entry's")


def null_and_never_nan(case: Case) -> None:
    """Every number is finite; what cannot be scored has a null. Give null, not NaN, for a request that failed."""
    found = case.scores(responses())
    for key, row in found.items():
        for number in (row["score"], *dict(row["quantities"]).values()):
            must(number is None or bool(np.isfinite(number)), f"{key} has {number}")
    must(any(row["score"] is not None for row in found.values()), "no row has a score")
    must(any(row["score"] is None for row in found.values()), "no row is null, although some requests failed")


def quantities_make_the_score(case: Case) -> None:
    """Its quantities make its score, by the SQL of its trait `score`. Declare `@scorer(..., score="votes / samples")`,
    and give these quantities with the score."""
    formula = case.method.traits.get("score")
    must(formula is not None, "it declares no `score`")
    for key, row in case.scores(responses()).items():
        if row["score"] is not None:
            given = dict(row["quantities"])
            columns = ", ".join(f'{value!r}::DOUBLE AS "{name}"' for name, value in given.items()) or "NULL AS nothing"
            (made,) = macros().execute(f"SELECT ({formula})::DOUBLE FROM (SELECT {columns})").fetchall()[0]
            must(made == row["score"], f"{key} has the score {row['score']}, and {formula} of {given} is {made}")


@cache
def macros() -> duckdb.DuckDBPyConnection:
    """A connection that knows what rules may call."""
    return opened([])


def same(seen: Scores, expected: Scores, where: str) -> None:
    """Equal rows, or the first that differ."""
    for key, row in expected.items():
        must(seen.get(key) == row, f"{key} is {seen.get(key)} {where} and {row} otherwise")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (
        order_means_nothing,
        parts_mean_nothing,
        another_entrys_answers_change_nothing,
        null_and_never_nan,
        quantities_make_the_score,
    ),
    lambda case: True,
)
