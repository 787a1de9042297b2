"""Tables on disk: bytes depend on the rows alone, and what cannot be right is refused."""

from __future__ import annotations

import random
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts import EVALS, EXAMPLES, GAPS, PROMPTS, RESPONSES, SCORES, SELECTIONS, SIGNALS
from pipeline.errors import Refused
from pipeline.tables import ids, parquet, sorting, tensors
from pipeline.tables.parquet import RowError, Scan

PARTS = 3


def scores(n: int = 500) -> list[dict]:
    return [
        {
            "response_id": ids.digest("record", i),
            "prompt_id": ids.digest("prompt", i // 4),
            "score": None if i % 7 == 0 else i / 3,
            "quantities": [("n", float(i)), ("c", 1.0)],
            "vector": [i * 0.1] * (i % 5) if i % 2 else None,
            "detail": f"row {i}" if i % 3 else None,
        }
        for i in range(n)
    ]


def cut(rows: list[dict], size: int) -> list[pa.RecordBatch]:
    return [SCORES.rows(rows[i : i + size]) for i in range(0, len(rows), size)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parquet.walk(folder)}


def test_bytes_depend_on_the_rows_alone(tmp_path: Path) -> None:
    rows = scores()
    assert parquet.write(SCORES, tmp_path / "one", PARTS, cut(rows, 500)) == 500
    shuffled = random.Random(0).sample(rows, len(rows))
    for size in (1, 33, 499):
        parquet.write(SCORES, tmp_path / str(size), PARTS, cut(shuffled, size))
        assert bytes_of(tmp_path / str(size)) == bytes_of(tmp_path / "one")
        assert parquet.folder_digest(tmp_path / str(size)) == parquet.folder_digest(tmp_path / "one")


@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("count", [99, 100, 101, 500])
def test_rows_that_fit_no_memory_have_the_bytes_of_those_that_do(
    parts: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are those of the whole part written at once."""
    monkeypatch.setattr(parquet, "ROW_GROUP", 50)
    rows = random.Random(0).sample(scores(count), count)
    for run in (count, 37):
        monkeypatch.setattr(sorting, "RUN_ROWS", run)
        assert parquet.write(SCORES, tmp_path / str(run), parts, cut(rows, 20)) == count
    for part in range(parts):
        here = [row for row in rows if ids.part_of(row["prompt_id"], parts) == part]
        whole = pa.Table.from_batches([SCORES.rows(sorted(here, key=lambda row: row["response_id"]))])
        pq.write_table(whole, tmp_path / "whole.parquet", compression="zstd", row_group_size=50)
        for run in (count, 37):
            written = (tmp_path / str(run) / parquet.part_name(part)).read_bytes()
            assert written == (tmp_path / "whole.parquet").read_bytes()


def test_many_bytes_are_written_in_groups_that_hang_on_the_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2000)
    rows = scores(100)
    for size in (7, 100):
        parquet.write(SCORES, tmp_path / str(size), 1, cut(rows, size))
    one, other = (tmp_path / str(size) / parquet.part_name(0) for size in (7, 100))
    assert one.read_bytes() == other.read_bytes() and pq.read_metadata(one).num_row_groups > 3
    assert len(Scan(SCORES, (tmp_path / "7",)).pylist()) == 100


def test_what_no_array_can_hold_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write(SCORES, tmp_path / "a", 1, cut(scores(), 100))
    scan = Scan(SCORES, (tmp_path / "a",))
    monkeypatch.setattr(parquet, "MOST", 5000)
    assert len(scan.read(["score"])) == 500
    with pytest.raises(
        Refused, match=r"a: response_id has 0\.0 GB, and 2\.1 GB of a column .* Give the pool more `parts`"
    ):
        scan.read()
    monkeypatch.setattr(parquet, "MOST", 10**9)
    for error in (pa.ArrowInvalid("offset overflow"), pa.ArrowCapacityError("full"), pa.ArrowNotImplementedError("no")):
        with monkeypatch.context() as patched, pytest.raises(Refused, match=r"part-00000.* Give the pool more `parts`"):
            patched.setattr(pq.ParquetFile, "read", Mock(side_effect=error))
            scan.read()


@pytest.mark.parametrize(("many", "heavy"), [(40, 10**9), (10**6, 4000), (10**6, 10**9)])
def test_rows_by_prompt_are_many_or_heavy_together_and_siblings_stay_so(
    many: int, heavy: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MANY", many)
    monkeypatch.setattr(parquet, "HEAVY", heavy)
    monkeypatch.setattr(sorting, "RUN_ROWS", 50)
    parquet.write(SCORES, tmp_path / "a", 1, cut(scores(), 100))
    pieces = list(Scan(SCORES, (tmp_path / "a",)).by_prompt(["prompt_id", "response_id"], tmp_path))
    assert (len(pieces) > 2) == (many == 40 or heavy == 4000)
    prompts = [set(piece["prompt_id"].to_pylist()) for piece in pieces]
    assert sum(map(len, pieces)) == 500 and sum(map(len, prompts)) == len(set().union(*prompts))


def test_rows_come_back_and_siblings_stay_together(tmp_path: Path) -> None:
    rows = scores()
    parquet.write(SCORES, tmp_path / "a", PARTS, cut(rows, 100))
    scan = Scan(SCORES, (tmp_path / "a",))
    assert (scan.parts, scan.count()) == (PARTS, 500)
    back = {row["response_id"]: row for row in scan.pylist()}
    assert back.keys() == {row["response_id"] for row in rows}
    assert all(back[row["response_id"]]["score"] == row["score"] for row in rows)
    for part in range(PARTS):
        here = scan.at(part).pylist(["response_id", "prompt_id"])
        assert here == sorted(here, key=lambda row: row["response_id"])
        assert all(ids.part_of(row["prompt_id"], PARTS) == part for row in here)


def test_an_empty_table_has_all_its_parts(tmp_path: Path) -> None:
    assert parquet.write(SCORES, tmp_path / "a", PARTS, []) == 0
    scan = Scan(SCORES, (tmp_path / "a",))
    assert (scan.parts, scan.count(), scan.read().schema) == (PARTS, 0, SCORES.schema)


def test_a_folder_of_tables_reads_as_one(tmp_path: Path) -> None:
    rows = scores()
    for name, some in (("a", rows[:100]), ("b", rows[100:])):
        parquet.write(SCORES, tmp_path / name, PARTS, cut(some, 100))
    scan = Scan(SCORES, (tmp_path / "a", tmp_path / "b"))
    assert (scan.names, scan.count()) == (("a", "b"), 500)
    assert scan.only("b").count() == 400
    with pytest.raises(Refused, match="no table 'c' among a, b"):
        scan.only("c")


def test_tables_of_different_parts_are_refused(tmp_path: Path) -> None:
    parquet.write(SCORES, tmp_path / "a", 2, [])
    parquet.write(SCORES, tmp_path / "b", 3, [])
    with pytest.raises(Refused, match="different numbers of parts"):
        Scan(SCORES, (tmp_path / "a", tmp_path / "b")).read()


def test_a_null_where_none_may_be_is_refused(tmp_path: Path) -> None:
    nullable = pa.schema([field.with_nullable(True) for field in GAPS.schema])
    row = {"domain": "add", "n": None, "weight": 1.0}
    batch = pa.RecordBatch.from_pylist([row], schema=nullable)
    with pytest.raises(RowError, match=r"gaps: column n must not be null \(1 rows are\)"):
        parquet.write_part(GAPS, tmp_path, 0, [batch])


NAN = float("nan")
SIGNAL = {
    "prompt_id": "p", "domain": "d", "token_ids": [1, 2], "spans": [{"start": 0, "end": 2}], "weight": 1.0,
    "template_hash": "t", "tokenizer_hash": "t", "response_ids": ["r"], "teacher_id": "m",
    "topk_ids": [[1, 2], [3, 4]], "topk_logprobs": [[-0.5, -1.0], [-0.5, -1.0]], "tail_mass": [0.1, 0.1],
    "target_logprob": [-0.5, -0.5], "temperature": 1.0,
}  # fmt: skip
SCORE = {"prompt_id": "p", "score": 0.5, "quantities": [("a", 1.0), ("b", 2.0)], "vector": [0.1, 0.2]}
# What a row says otherwise, and the column that it is refused by.
WITH_NAN = {
    "a score": (SCORES, {"score": NAN}, "score"),
    "a quantity": (SCORES, {"quantities": [("a", 1.0), ("b", NAN)]}, "quantities"),
    "a vector": (SCORES, {"vector": [0.1, NAN]}, "vector"),
    "a weight": (SELECTIONS, {"weight": NAN}, "weight"),
    "an example's weight": (EXAMPLES, {"weight": NAN}, "weight"),
    "a reward": (EXAMPLES, {"reward": NAN}, "reward"),
    "one of the likeliest": (SIGNALS, {"topk_logprobs": [[-0.5, -1.0], [NAN, -1.0]]}, "topk_logprobs"),
    "a tail": (SIGNALS, {"tail_mass": [0.1, NAN]}, "tail_mass"),
    "a target": (SIGNALS, {"target_logprob": [NAN, -0.5]}, "target_logprob"),
    "a temperature": (SIGNALS, {"temperature": NAN}, "temperature"),
    "a metric": (EVALS, {"metric": NAN}, "metric"),
    "a confidence": (EVALS, {"confidence": NAN}, "confidence"),
    "a cost": (RESPONSES, {"cost_usd": NAN}, "cost_usd"),
    "a log-probability": (RESPONSES, {"logprobs": [-0.5, NAN]}, "logprobs"),
    "a NaN of another sign": (SCORES, {"score": -NAN}, "score"),
}
GOOD = {
    "scores": SCORE,
    "signals": SIGNAL,
    "examples": SIGNAL,
    "selections": {"prompt_id": "p", "domain": "d", "kept": True, "weight": 1.0, "reason": "r", "tokens": 1},
    "evals": {
        "task": "t",
        "prompt_id": "p",
        "domain": "d",
        "model": "m",
        "measure": "accuracy",
        "finish_reason": "stop",
    },
    "responses": {
        "request_id": "q",
        "prompt_id": "p",
        "messages": [],
        "domain": "d",
        "entry": "e",
        "model_id": "m",
        "sample": 0,
        "seed": 0,
        "content": "c",
        "finish_reason": "stop",
        "attempts": 1,
        "logprobs": [-0.5, None],
    },
}


@pytest.mark.parametrize("what", WITH_NAN)
def test_no_nan_enters_a_table(what: str, tmp_path: Path) -> None:
    """It is refused with the table, the column, how many rows, and the id of the first."""
    table, changed, column = WITH_NAN[what]
    key = table.key[-1]
    known = {k: v for k, v in GOOD[table.name].items() if k in table.columns}
    rows = [{**known, key: f"{i:032x}", **(changed if i in (2, 4) else {})} for i in range(6)]
    with pytest.raises(RowError, match=rf"table {table.name}: column {column} holds NaN in 2 rows, .*{key} 0+2\b"):
        parquet.write(table, tmp_path / "a", 1, [table.rows(rows)])
    null = {k: NULLS.get(k) for k in changed}
    good = [{**row, **null} if i in (2, 4) and table.columns[column].nullable else {**row, column: known.get(column)}
            for i, row in enumerate(rows)]  # fmt: skip
    assert parquet.write(table, tmp_path / "b", 1, [table.rows(good)]) == 6


NULLS = {"logprobs": [-0.5, None], "vector": [None]}


@pytest.mark.parametrize(
    ("values", "kind", "found"),
    [
        ([0.1, NAN, None], pa.float64(), [False, True, False]), ([None, None], pa.float32(), [False, False]),
        ([float("inf"), -float("inf")], pa.float64(), [False, False]), ([1, None], pa.int64(), [False, False]),
        ([[0.1], [], None, [NAN], [0.1, None, NAN]], pa.list_(pa.float32()), [False, False, False, True, True]),
        ([[[0.1], [NAN]], [[]], []], pa.list_(pa.list_(pa.float64())), [True, False, False]),
        ([[("a", NAN)], [("a", 1.0)], None], pa.map_(pa.string(), pa.float64()), [True, False, False]),
        ([{"a": NAN}, {"a": None}, None], pa.struct([("a", pa.float64())]), [True, False, False]),
        ([[{"a": 1.0}], [{"a": NAN}]], pa.list_(pa.struct([("a", pa.float64())])), [False, True]),
        ([], pa.list_(pa.float64()), []), (["nan", None], pa.string(), [False, False]),
    ],
    ids=str,
)  # fmt: skip
def test_nan_is_found_at_any_depth_and_in_slices(values: list, kind: pa.DataType, found: list[bool]) -> None:
    whole = pa.array(values, kind)
    assert parquet.with_nan(whole).tolist() == found
    for start in range(len(values)):
        assert parquet.with_nan(whole.slice(start)).tolist() == found[start:]


def test_two_rows_of_one_key_are_refused(tmp_path: Path) -> None:
    row = scores(1)[0]
    with pytest.raises(RowError, match="two rows share the key response_id"):
        parquet.write(SCORES, tmp_path / "a", PARTS, [SCORES.rows([row]), SCORES.rows([row])])


def test_two_rows_of_one_key_are_found_across_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP", 2)
    names = ["0a", "1b", "1b", "2c"]
    rows = [{**scores(1)[0], "response_id": name} for name in names]
    with pytest.raises(RowError, match="two rows share the key response_id"):
        parquet.write_part(SCORES, tmp_path, 0, [SCORES.rows(rows)])


def test_columns_that_no_table_has_or_that_are_missing_are_refused() -> None:
    with pytest.raises(ValueError, match="no column vectr"):
        SCORES.batch(response_id=["r"], prompt_id=["p"], quantities=[[]], vectr=[None])
    with pytest.raises(ValueError, match="column quantities is missing"):
        SCORES.batch(response_id=["r"], prompt_id=["p"])


@pytest.mark.parametrize("kept", [0, 3, 200])
def test_a_torn_file_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    parquet.write(SCORES, tmp_path / "a", PARTS, cut(scores(), 100))
    torn = tmp_path / "a" / parquet.part_name(1)
    torn.write_bytes(torn.read_bytes()[:kept])
    with pytest.raises(Refused, match=r"part-00001\.parquet cannot be read as Parquet"):
        Scan(SCORES, (tmp_path / "a",)).read()


def test_a_file_of_another_table_is_refused_by_name(tmp_path: Path) -> None:
    parquet.write(SCORES, tmp_path / "a", 1, cut(scores(8), 8))
    with pytest.raises(Refused, match=r"part-00000\.parquet"):
        Scan(PROMPTS, (tmp_path / "a",)).read()


def test_cells_of_arrays_can_be_read_without_their_bytes(tmp_path: Path) -> None:
    image = tensors.cell({"image": np.zeros((2, 3), np.uint8)})
    rows = [
        {"prompt_id": ids.digest(i), "messages": [{"role": "user", "content": "?"}], "domain": "d", "source": "s",
         "group": "g", "inputs": cell}
        for i, cell in enumerate([image, None, []])
    ]  # fmt: skip
    parquet.write(PROMPTS, tmp_path / "prompts", 2, [PROMPTS.rows(rows)])
    scan = Scan(PROMPTS, (tmp_path / "prompts",))
    whole, light = (scan.read(["prompt_id", "inputs", "truth"], whole=whole) for whole in (True, False))
    assert light.drop("inputs").equals(whole.drop("inputs").cast(light.drop("inputs").schema))
    named = [{k: v for k, v in image[0].items() if k not in ("data", "uri")}]
    for row, thin in zip(whole.to_pylist(), light.to_pylist(), strict=True):
        assert thin["inputs"] == (named if row["inputs"] else row["inputs"])
        assert ids.of_arrays(thin["inputs"]) == ids.of_arrays(row["inputs"])
