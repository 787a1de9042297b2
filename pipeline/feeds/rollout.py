"""Feeds of what the student says itself while it learns."""

from __future__ import annotations

from typing import Annotated

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


class OnPolicy:
    """The feed; it keeps every row that it drew."""

    def __init__(self, share: float, sampling: Sampling) -> None:
        self.share, self.sampling = share, sampling
        self.drawn: list[pa.Table] = []

    def __call__(self, draw: Draw) -> pa.Table:
        if ids.draw(draw.seed, "rollout", draw.step.number) >= self.share:
            return draw.rows
        rows = draw.rows.select([n for n in draw.rows.column_names if n in ROLLOUTS.columns]).to_pylist()
        prompts = [row["token_ids"][: row["spans"][0]["start"]] for row in rows]
        seeds = [ids.seed_of(draw.seed, "rollout", draw.step.number, row["example_id"]) for row in rows]
        for i, (row, prompt, answer) in enumerate(
            zip(rows, prompts, draw.sample(prompts, seeds, self.sampling), strict=True)
        ):
            spans = [{"start": len(prompt), "end": len(prompt) + len(answer)}]
            row.update(
                example_id=ids.digest("rollout", draw.step.number, row["example_id"], answer),
                token_ids=[*prompt, *answer],
                spans=spans,
                reward=draw.reward(i, answer),
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
