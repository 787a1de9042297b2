"""Outcomes that are stored compactly are those that were stored, to a step, and a whole distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contracts import SIGNALS
from pipeline.tables import parquet, sql
from pipeline.tables.compact import STEPS, packed, plain
from pipeline.tables.parquet import Scan

SCHEMA = pa.schema(
    [SIGNALS.schema.field(n) for n in ("topk_ids", "topk_logprobs", "topk_gaps", "topk_steps", "tail_mass")]
)


def outcomes(places: int, vocabulary: int, k: int, spread: float = 2.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Ids and log-probabilities [N, K], likeliest first, and the mass of all others."""
    logits_NV = np.random.default_rng(seed).normal(0, spread, (places, vocabulary))
    logprobs_NV = logits_NV - np.log(np.exp(logits_NV).sum(1, keepdims=True))
    ids_NK = (-logprobs_NV).argsort(1)[:, :k]
    top_NK = np.take_along_axis(logprobs_NV, ids_NK, 1)
    tail_N = np.exp(np.take_along_axis(logprobs_NV, (-logprobs_NV).argsort(1)[:, k:], 1)).sum(1)
    return ids_NK.astype(np.int32), top_NK.astype(np.float32), tail_N.astype(np.float32)


def stored(*rows: tuple[np.ndarray, ...]) -> pa.Table:
    columns = packed([ids for ids, _, _ in rows], [logprobs for _, logprobs, _ in rows])
    tails = pa.array([tail for _, _, tail in rows], SIGNALS.schema.field("tail_mass").type)
    nothing = {name: pa.nulls(len(rows), SCHEMA.field(name).type) for name in ("topk_ids", "topk_logprobs")}
    return pa.table({**nothing, **columns, "tail_mass": tails}).select(SCHEMA.names).cast(SCHEMA)


@pytest.mark.parametrize(("vocabulary", "k"), [(10, 1), (64, 64), (300, 8), (70_000, 32)])
@pytest.mark.parametrize("spread", [0.1, 2.0, 30.0])
def test_what_comes_back_is_what_was_stored_to_a_step(vocabulary: int, k: int, spread: float) -> None:
    rows = [outcomes(n, vocabulary, k, spread, n) for n in (5, 1, 3)]
    found = plain(stored(*rows))
    assert found["topk_gaps"].null_count == found["topk_steps"].null_count == 3
    for i, (ids_NK, logprobs_NK, tail_N) in enumerate(rows):
        own = np.array(found["topk_ids"][i].as_py()), np.array(found["topk_logprobs"][i].as_py())
        assert (np.sort(own[0], 1) == np.sort(ids_NK, 1)).all() and (np.diff(own[1], axis=1) <= 0).all()
        there = np.take_along_axis(own[1], own[0].argsort(1), 1)
        was = np.take_along_axis(logprobs_NK, ids_NK.argsort(1), 1)
        # Half a step, and as much for where the likeliest stands.
        assert np.abs(there - was).max() <= 1 / STEPS + 1e-3
        assert np.exp(own[1]).sum(1) + tail_N == pytest.approx(1, abs=1e-5)


def test_a_number_that_is_none_stays_none() -> None:
    ids_NK, logprobs_NK, tail_N = outcomes(2, 50, 4)
    logprobs_NK[1] = np.nan
    [found] = plain(stored((ids_NK, logprobs_NK, tail_N)))["topk_logprobs"].to_pylist()
    assert None not in found[0] and found[1] == [None] * 4


def test_what_is_not_compact_is_left_as_it_is() -> None:
    rows = pa.table({"topk_gaps": pa.nulls(2, pa.list_(pa.int32())), "tail_mass": [[0.1], [0.2]]})
    assert plain(rows) is rows and len(plain(rows.slice(0, 0))) == 0


def test_a_compact_table_is_small_and_can_be_asked_in_sql(tmp_path: Path) -> None:
    """At most 6 / 2.2 bytes an outcome, where float16 and int32 ids take 6, on outcomes that have no pattern at all."""
    k, heads = 32, {"domain": "d", "weight": 1.0, "template_hash": "t", "tokenizer_hash": "t", "response_ids": ["r"]}
    rows = [outcomes(16, 32_000, k, 1.0, n) for n in range(48)]
    columns = {
        **{name: [value] * len(rows) for name, value in {**heads, "teacher_id": "m", "temperature": 1.0}.items()},
        "example_id": [f"{n:032x}" for n in range(48)], "prompt_id": [f"{n:032x}" for n in range(48)],
        "token_ids": [[1] * 17] * 48, "spans": [[{"start": 1, "end": 17}]] * 48,
        "target_logprob": [[-1.0] * 16] * 48, "tail_mass": [tail for _, _, tail in rows],
        **packed([ids for ids, _, _ in rows], [logprobs for _, logprobs, _ in rows]),
    }  # fmt: skip
    parquet.write(SIGNALS, tmp_path / "signals/some/teacher", 1, [SIGNALS.batch(**columns)])
    scan = Scan(SIGNALS, (tmp_path / "signals/some/teacher",))
    group = pa.parquet.read_metadata(scan.files[0]).row_group(0)
    sizes = {group.column(i).path_in_schema: group.column(i).total_compressed_size for i in range(group.num_columns)}
    taken = sum(size for path, size in sizes.items() if path.split(".")[0] in ("topk_gaps", "topk_steps"))
    assert taken <= 6 * k * 48 * 16 / 2.2
    asked = sql.connect([scan], tmp_path)
    [(mean, first)] = asked.sql("SELECT avg(list_avg(tail_mass)), sum(topk_gaps[1]) FROM signals").fetchall()
    assert mean == pytest.approx(np.mean([tail for _, _, tail in rows]), rel=1e-6)
    assert first == sum(int(ids[0].min()) for ids, _, _ in rows)
