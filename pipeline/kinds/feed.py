"""What a feed is given and gives: the rows of one step, which may be drawn while the student learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.core.methods import marker
from pipeline.kinds.backend import Sampling
from pipeline.kinds.objective import Step

# Traits: `reads`, the columns of the rows that are looked at, with `verifier` where a reward is asked for;
# `keeps_signals`, whether the rows that it gives are those that stored signals are of; `asks_teacher`, whether a live
# teacher takes part in the sampling.
feed = marker("feed")


class Sample(Protocol):
    """See `Draw`."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, mixed: float = 0.0, /
    ) -> list[list[int]]: ...


@dataclass(frozen=True)
class Draw:
    """What a feed may use at one step.

    `rows` are the step's own, with the columns of `examples`, one answer each: a conversation that is learnt from every
    answer is a row for each of them, up to its end, and an earlier answer has no verifier. Where an objective reads
    rewards it is one row, of its last answer. `sample(prompts, seeds, sampling)` gives the student's
    answer to each prompt, in tokens, the end token included; a seed is one answer's own, and a fourth argument is the
    share of a live teacher in what is sampled from. `reward(row, tokens)` is the metric of an answer to a row of `rows`
    by the row's verifier, None where it has none. `curve` has a point for every step before this one.
    """

    step: Step
    seed: int
    rows: pa.Table
    sample: Sample
    reward: Callable[[int, Sequence[int]], float | None]
    curve: Sequence[Mapping[str, float]] = ()


class Feed(Protocol):
    """Gives the rows of a step.

    A feed that keeps what it drew has `kept()`, a table that is written beside the model, and `restore(table)`.
    """

    def __call__(self, draw: Draw, /) -> pa.Table:
        """The rows, with the columns of `examples`."""
        ...
