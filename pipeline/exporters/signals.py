"""A teacher's stored distributions, for trainers that read them from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.contracts import IDS, REALS, SIGNALS
from pipeline.kinds.exporter import PARQUET, ROWS, Batches, Exporter, Shape, exporter
from pipeline.tables.compact import plain
from pipeline.tables.lists import inside
from pipeline.tables.plain import Row, write_parquet

# What a loss passes over, in torch and in every trainer built on it.
IGNORED = -100
SCHEMA = pa.schema({
    "input_ids": IDS,
    "labels": IDS,
    "topk_ids": pa.list_(IDS),
    "topk_logprobs": pa.list_(REALS),
    "tail_mass": REALS,
})  # fmt: skip
USE = """\
`input_ids` and `labels` (-100 where nothing is learnt) are as `SFTTrainer` reads them. The lists of the other columns
have an entry for every label that is not -100, in their order: the ids of the likeliest tokens at that place, their
natural log-probabilities before temperature, and the probability of all other tokens together. A causal model predicts
a label from the states of the token before it. Ids are those of the tokenizer that the rows were cut with."""


@exporter(reads="signals")
def topk() -> Exporter:
    """Token ids, labels, and at every label the teacher's likeliest tokens with their log-probabilities.

    Paper: none; what DistillKit and other trainers on stored logits need.
    Differs: DistillKit packs ids into bits and fits log-probabilities by a polynomial; here they lie as they are.
    """

    def write(batches: Batches, out: Path) -> Shape:
        def rows() -> Iterator[Row]:
            for batch in batches:
                for row in plain(batch.select([n for n in SIGNALS.columns if n in batch.schema.names])).to_pylist():
                    tokens = np.array(row["token_ids"], np.int32)
                    learnt = inside(pa.array([row["spans"]], SIGNALS.columns["spans"].type), len(tokens))[0]
                    labels = np.where(learnt & (tokens >= 0), tokens, IGNORED)
                    columns = {name: row[name] for name in ("topk_ids", "topk_logprobs", "tail_mass")}
                    yield {"input_ids": tokens, "labels": labels, **columns}

        return Shape(write_parquet(out / PARQUET, SCHEMA, rows()), ROWS, USE, {})

    return write
