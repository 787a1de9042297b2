"""The rows of a training: Arrow from the file to the batch, checked by file and example, in the order of their ids."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")

from pipeline.contracts import SIGNALS  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.tables import ids, parquet  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from pipeline.training.batches import APART, BUCKET, micro_batches  # noqa: E402
from pipeline.training.places import places  # noqa: E402
from pipeline.training.rows import BATCH_ROWS, Rows  # noqa: E402

K = 3


def row(i: int, **changed: Any) -> dict[str, Any]:
    """A row of signals with 4 + i % 5 tokens, of which all but the first two are learnt."""
    tokens = [(i + t) % 20 for t in range(4 + i % 5)]
    places = len(tokens) - 2
    made = {
        "example_id": ids.digest("example", i),
        "prompt_id": ids.digest("prompt", i // 3),
        "domain": "add",
        "token_ids": tokens,
        "spans": [{"start": 2, "end": len(tokens)}],
        "weight": 1.0 + i,
        "template_hash": "t",
        "tokenizer_hash": "h",
        "response_ids": [str(i)],
        "teacher_id": "m",
        "topk_ids": [[i % 20, (i + 1) % 20, (i + 2) % 20]] * places,
        "topk_logprobs": [[-0.5, -1.5, -2.5]] * places,
        "tail_mass": [0.1 + i / 1000] * places,
        "target_logprob": [-0.5] * places,
        "temperature": 1.0,
        **changed,
    }
    return {name: value for name, value in made.items() if name in SIGNALS.columns} | (
        {"logprob_mode": "raw"} if "logprob_mode" in SIGNALS.columns else {}
    )


def scan(place: Path, rows: list[dict[str, Any]], parts: int = 3, name: str = "some") -> Scan:
    parquet.write(SIGNALS, place / name, parts, [SIGNALS.rows(rows)])
    return Scan(SIGNALS, (place / name,))


def test_rows_are_in_the_order_of_their_ids_however_they_are_cut(tmp_path: Path) -> None:
    """More than one batch of the file, in one part and in three."""
    made = [row(i) for i in range(BATCH_ROWS + 300)]
    expected = [r["example_id"] for r in sorted(made, key=lambda r: r["example_id"])]
    for parts in (1, 3):
        held = Rows.of(scan(tmp_path, made, parts, f"parts{parts}"), tmp_path / "rows.arrow")
        assert held.take(range(len(held)))["example_id"].to_pylist() == expected
    chosen = [1300, 2, 700, 2, 1100]
    assert held.take(chosen)["example_id"].to_pylist() == [expected[i] for i in chosen]
    assert len(set(held.prompt_ids)) == (BATCH_ROWS + 300 + 2) // 3


def test_ranks_are_those_of_the_rows_or_missing(tmp_path: Path) -> None:
    made = [row(i, rank=None if i == 4 else 100 - i) for i in range(9)]
    held = Rows.of(scan(tmp_path, made, 2), tmp_path / "rows.arrow")
    assert held.ranks is not None
    ordered = sorted(made, key=lambda r: r["example_id"])
    assert held.ranks.tolist() == [-1 if r["rank"] is None else r["rank"] for r in ordered]


def test_a_batch_is_what_its_rows_say(tmp_path: Path) -> None:
    held = Rows.of(scan(tmp_path, [row(i) for i in range(40)]), tmp_path / "rows.arrow")
    table = held.take([5, 3, 9])
    found, listed = places(table), table.to_pylist()
    learnt = [(r, t) for r, one in enumerate(listed) for t in range(2, len(one["token_ids"]))]
    assert found.target_N.tolist() == [listed[r]["token_ids"][t] for r, t in learnt]
    assert found.example_N.tolist() == [r for r, _ in learnt]
    assert found.weight_B.tolist() == [one["weight"] for one in listed]
    assert found.teacher is not None and found.reference_N is not None
    assert found.teacher.ids_NK.tolist() == [ids for one in listed for ids in one["topk_ids"]]
    np.testing.assert_allclose(found.teacher.tail_N, [m for one in listed for m in one["tail_mass"]], rtol=1e-6)
    assert found.teacher.logprobs_NK.shape == (len(learnt), K) and found.teacher.temperature == 1.0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"topk_logprobs": [[-0.5, None, -2.5]] * 4}, "stores NaN or infinite log-probabilities"),
        ({"topk_logprobs": [[-0.5, -1.5, float("-inf")]] * 4}, "stores NaN or infinite log-probabilities"),
        ({"tail_mass": [0.1, None, 0.1, 0.1]}, "a tail mass that is NaN or infinite"),
        ({"target_logprob": [float("-inf")] * 4}, "a target's log-probability that is no number"),
        ({"spans": []}, "has no place that is learnt"),
        ({"spans": [{"start": 3, "end": 3}]}, "has no place that is learnt"),
        ({"topk_ids": [[1, 2, 20]] * 4}, "outcomes that the student does not have"),
        ({"topk_ids": [[1, 2]] * 4, "topk_logprobs": [[-0.5, -1.5]] * 4}, "Probe all of them with one `top_k`"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_refused_by_file_and_example(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    rows = [row(i) for i in range(9)]
    rows[7] = row(2, example_id=ids.digest("example", 7), prompt_id=rows[7]["prompt_id"], **changed)
    table = scan(tmp_path, rows)
    (file,) = (f for f in table.files if rows[7]["example_id"] in _examples(f))
    with pytest.raises(Refused) as error:
        Rows.of(table, tmp_path / "rows.arrow", columns=20)
    assert words in str(error.value) and str(file) in str(error.value)
    if "top_k" not in words:
        assert rows[7]["example_id"] in str(error.value)


INFINITE = {
    "one of the likeliest": {"topk_logprobs": [[-0.5, None, -2.5]] * 4},
    "all of the likeliest": {"topk_logprobs": [[None, None, None]] * 4},
    "at one place": {"topk_logprobs": [[-0.5, -1.5, -2.5]] * 3 + [[None, -1.5, -2.5]]},
    "minus infinity": {"topk_logprobs": [[-0.5, -1.5, float("-inf")]] * 4},
    "infinity": {"topk_logprobs": [[float("inf"), -1.5, -2.5]] * 4},
    "the tail": {"tail_mass": [0.1, None, 0.1, 0.1]},
    "an infinite tail": {"tail_mass": [float("inf")] * 4},
    "the target": {"target_logprob": [None] * 4},
    "the last target": {"target_logprob": [-0.5, -0.5, -0.5, None]},
    "an infinite target": {"target_logprob": [float("-inf")] * 4},
    "everything": {"topk_logprobs": [[None] * 3] * 4, "tail_mass": [None] * 4, "target_logprob": [None] * 4},
}


@pytest.mark.parametrize("what", INFINITE)
def test_a_row_without_numbers_is_refused_or_left_out_as_the_parameter_says(what: str, tmp_path: Path) -> None:
    rows = [row(i) for i in range(9)]
    for at in (3, 7):
        same = {key: rows[at][key] for key in ("example_id", "prompt_id")}
        rows[at] = row(2, **same, **INFINITE[what])
    table = scan(tmp_path, rows)
    with pytest.raises(Refused, match="on_bad_row: drop"):
        Rows.of(table, tmp_path / "rows.arrow", columns=20)
    held = Rows.of(table, tmp_path / "rows.arrow", columns=20, drop=True)
    assert (len(held), held.dropped) == (7, 2)
    left = set(held.take(range(7))["example_id"].to_pylist())
    assert left == {r["example_id"] for i, r in enumerate(rows) if i not in (3, 7)}


def test_only_rows_without_numbers_are_left_out(tmp_path: Path) -> None:
    table = scan(tmp_path, [row(0), row(1, spans=[])])
    with pytest.raises(Refused, match="has no place that is learnt"):
        Rows.of(table, tmp_path / "rows.arrow", columns=20, drop=True)


def _examples(file: Path) -> list[str]:
    return pq.read_table(file, columns=["example_id"])["example_id"].to_pylist()


def test_two_probes_of_different_k_are_refused_together(tmp_path: Path) -> None:
    wide = [row(i) for i in range(6)]
    narrow = [
        {**r, "topk_ids": [x[:2] for x in r["topk_ids"]], "topk_logprobs": [x[:2] for x in r["topk_logprobs"]]}
        for r in wide
    ]
    folders = tuple(scan(tmp_path, rows, 2, name).folders[0] for name, rows in (("a", wide), ("b", narrow)))
    with pytest.raises(Refused, match="store 2 outcomes a place, and those before it 3"):
        Rows.of(Scan(SIGNALS, folders), tmp_path / "rows.arrow")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"temperature": 2.0}, "store 2 as their temperature, and those before it 1"),
        (
            {"tempered": lambda r: [{"temperature": t, "tail_mass": r["tail_mass"]} for t in (2.0, 4.0)]},
            "store 2 and 4 as further temperatures, and those before it none",
        ),
    ],
)
def test_two_teachers_that_were_read_otherwise_are_refused_together(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    rows = [row(i) for i in range(6)]
    other = [{**r, **{k: v(r) if callable(v) else v for k, v in changed.items()}} for r in rows]
    folders = tuple(scan(tmp_path, some, 2, name).folders[0] for name, some in (("a", rows), ("b", other)))
    with pytest.raises(Refused, match=says):
        Rows.of(Scan(SIGNALS, folders), tmp_path / "rows.arrow")
    assert len(Rows.of(Scan(SIGNALS, folders[:1] * 2), tmp_path / "both.arrow")) == 12


def test_a_step_is_laid_out_by_length() -> None:
    lengths = [400, 30, 380, 31, 600, 29, 32, 390]
    pieces = micro_batches(lengths, 1024)
    assert sorted(row for piece in pieces for row in piece) == list(range(8))
    sizes = [[lengths[i] for i in piece] for piece in pieces]
    assert all(max(some) * len(some) <= 1100 or len(some) == 1 for some in sizes)
    padding = sum(max(some) * len(some) for some in sizes) / sum(lengths)
    assert padding < 1.05 < 8 * max(lengths) / sum(lengths)
    assert pieces == micro_batches(np.array(lengths), 1024)


def test_a_set_stays_in_one_micro_batch() -> None:
    pieces = micro_batches([40, 600, 41, 590, 42, 30], 1024, ["a", "a", "b", "b", "c", "c"])
    assert sorted(map(sorted, pieces)) in ([[0, 1], [2, 3], [4, 5]], [[0, 1, 2, 3], [4, 5]])


def test_the_cut_is_the_cheapest_of_all() -> None:
    """Against every way to cut the order of the lengths."""
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(5, 500, 7)
        order = sorted(range(7), key=lambda i: math.ceil(lengths[i] / BUCKET), reverse=True)

        def cost(pieces: list[list[int]], lengths: np.ndarray = lengths) -> float:
            widths = [math.ceil(max(lengths[i] for i in piece) / BUCKET) * BUCKET for piece in pieces]
            fits = all(w * len(p) <= 1024 or len(p) == 1 for w, p in zip(widths, pieces, strict=True))
            return sum(w * len(p) + APART for w, p in zip(widths, pieces, strict=True)) if fits else np.inf

        every = []
        for cuts in range(64):
            pieces, piece = [], [order[0]]
            for at, row in enumerate(order[1:]):
                if cuts >> at & 1:
                    pieces, piece = [*pieces, piece], []
                piece.append(row)
            every.append(cost([*pieces, piece]))
        assert cost(micro_batches(lengths, 1024)) == min(every)
