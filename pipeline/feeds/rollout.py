"""Feeds of what the student says itself while it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.contracts import ROLLOUTS
from pipeline.kinds.backend import Sampling
from pipeline.kinds.feed import Draw, Feed, feed
from pipeline.tables import ids


@feed(reads=("example_id", "token_ids", "spans", "verifier", "reference"), keeps_signals=False)
def on_policy(
    *,
    share: Annotated[float, Field(ge=0, le=1)] = 0.5,
    temperature: NonNegativeFloat = 1.0,
    max_tokens: PositiveInt = 64,
) -> Feed:
    """In a share of the steps, drawn by the step's number, the student's own answers take the place of the rows'.

    Paper: Agarwal et al. 2024, GKD (arXiv 2306.13649), algorithm 1; `share` is its lambda.
    Differs: a step is on-policy as a whole, as there; nothing flows back through the sampling.
    """
    return OnPolicy(share, Sampling(temperature, 1.0, max_tokens))


class Keeping:
    """What feeds of the student's own answers have in common: they keep every row that they drew."""

    def __init__(self) -> None:
        self.drawn: list[pa.Table] = []

    def draw(
        self, draw: Draw, numbers: Sequence[int], names: Sequence[tuple[Any, ...]], sampling: Sampling, mixed: float = 0
    ) -> pa.Table:
        """The student's answers in the place of those of some rows of the step; an answer's name decides its draw."""
        columns = [name for name in draw.rows.column_names if name in ROLLOUTS.columns]
        rows = draw.rows.select(columns).take(pa.array(numbers, pa.int64())).to_pylist()
        prompts = [row["token_ids"][: row["spans"][0]["start"]] for row in rows]
        seeds = [ids.seed_of(draw.seed, *name) for name in names]
        answers = draw.sample(prompts, seeds, sampling, mixed)
        for number, row, prompt, name, answer in zip(numbers, rows, prompts, names, answers, strict=True):
            row.update(
                example_id=ids.digest(*name, answer),
                token_ids=[*prompt, *answer],
                spans=[{"start": len(prompt), "end": len(prompt) + len(answer)}],
                reward=draw.reward(number, answer),
                step=draw.step.number + 1,
            )
        table = pa.Table.from_pylist(rows, schema=ROLLOUTS.schema)
        self.drawn.append(table)
        return table

    def kept(self) -> pa.Table:
        """Every row that was drawn."""
        return pa.concat_tables(self.drawn) if self.drawn else ROLLOUTS.schema.empty_table()

    def restore(self, table: pa.Table) -> None:
        """Go on after these."""
        self.drawn = [table]


class OnPolicy(Keeping):
    """See `on_policy`."""

    def __init__(self, share: float, sampling: Sampling) -> None:
        super().__init__()
        self.share, self.sampling = share, sampling

    def __call__(self, draw: Draw) -> pa.Table:
        step = draw.step.number
        if ids.draw(draw.seed, "rollout", step) >= self.share:
            return draw.rows
        names = [("rollout", step, example) for example in draw.rows["example_id"].to_pylist()]
        return self.draw(draw, range(len(names)), names, self.sampling)
