"""Laws of readers: one finite number per answer, of the reading alone, with what it was made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pipeline.contracts import SCORES
from pipeline.core.methods import Method
from pipeline.kinds.backend import Reading, Want
from pipeline.kinds.reader import Reader, want_of
from pipeline.laws.law import arguments, build, must

KNOWN = frozenset({"score", "quantities", "detail", "vector"})


@dataclass(frozen=True)
class Case:
    """A reader with arguments."""

    method: Method
    arguments: dict[str, Any]
    reader: Reader
    want: Want | None

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])


def cases(method: Method) -> Iterator[Case]:
    """A reader with several arguments."""
    for given in arguments(method, {}):
        filled = method.arguments.model_validate(given).model_dump()
        yield Case(method, given, build(method, given), want_of(method, filled))


def reading(want: Want | None, seed: int = 0, tokens: int = 5) -> Reading:
    """What a model would say of an answer, as far as it is wanted; another seed is another reading."""
    if want is None:
        return Reading("r", np.full(tokens + seed, np.nan))
    draw = np.random.default_rng(seed)
    logprob, states = -draw.exponential(size=tokens).astype(np.float32), draw.normal(size=8).astype(np.float32)
    shown: dict[str, Any] = {}
    if want.top_k:
        p_NV = np.sort(draw.dirichlet(np.ones(want.top_k + 1), size=tokens).astype(np.float32))[:, ::-1]
        taken_NK = np.argsort(draw.random((tokens, want.top_k)), axis=1).astype(np.int32)
        shown = {"topk_ids": taken_NK, "topk_logprobs": np.log(p_NV[:, :-1]), "tail_mass": p_NV[:, -1]}
    return Reading(
        "r",
        logprob,
        embedding=states if want.embedding else None,
        gradient=draw.normal(size=want.gradient).astype(np.float32) if want.gradient else None,
        descent=draw.random(2) if want.descent else None,
        **shown,
    )


def it_gives_a_row_of_scores(case: Case) -> None:
    """It gives the columns of a score: `score`, `quantities`, and `detail` or `vector`. Add no other."""
    for tokens in (1, 5):
        row = case.reader(reading(case.want, tokens=tokens))
        must(set(row) <= KNOWN, f"it gives {', '.join(sorted(set(row) - KNOWN))}")
        SCORES.rows([{"response_id": "r", "prompt_id": "p", **row}])


def every_number_is_finite(case: Case) -> None:
    """Score, quantities and vector are finite, of one token as of many. Divide by no count that may be 0."""
    for tokens in (1, 5, 400):
        row = case.reader(reading(case.want, tokens=tokens))
        for number in (row["score"], *dict(row["quantities"]).values(), *(row.get("vector") or ())):
            must(number is None or math.isfinite(number), f"{tokens} tokens give {number}")


def only_the_reading_counts(case: Case) -> None:
    """It remembers nothing, and changes nothing of what it is given. Keep no state between two readings."""
    given, before = reading(case.want), reading(case.want)
    first = case.reader(given)
    other = case.reader(reading(case.want, seed=1))
    must(case.reader(given) == first, "a second call gives another row")
    must(other != first, "another reading gives the same row")
    for f in fields(Reading):
        a, b = getattr(given, f.name), getattr(before, f.name)
        if isinstance(a, np.ndarray):
            must(np.array_equal(a, b, equal_nan=True), f"it writes into {f.name}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (it_gives_a_row_of_scores, every_number_is_finite, only_the_reading_counts), lambda case: True
)
