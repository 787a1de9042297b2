"""What holds for every cell of arrays: it gives back what it was given, with the same bytes on any machine; what does
not fit is refused by the name of the array."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from pipeline.contracts import TENSORS
from pipeline.errors import Refused
from pipeline.tables.tensors import DTYPES, FILES, arrays, cell, digest, stacked

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SHAPES = nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def finite(dtype: np.dtype) -> st.SearchStrategy:
    return nps.from_dtype(dtype, **({"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}))


NUMBERS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda kind: nps.arrays(DTYPES[kind], SHAPES, elements=finite(DTYPES[kind]))
)
PICTURES = st.builds(lambda kind, rest: FILES[kind] + rest, st.sampled_from(sorted(FILES)), st.binary(max_size=20))
CELLS = st.dictionaries(NAMES, NUMBERS | PICTURES, max_size=4)


def same(one: np.ndarray | bytes, two: np.ndarray | bytes) -> bool:
    if isinstance(one, bytes) or isinstance(two, bytes):
        return one == two
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


def entry(**changes: Any) -> dict[str, Any]:
    [made] = cell({"mask": np.arange(6, dtype=np.int32).reshape(2, 3)})
    return {**made, **changes}


@settings(deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=4), NAMES)
def test_arrays_of_one_shape_are_stacked_and_no_others(given_: list[dict[str, Any]], name: str) -> None:
    """Also of a part of a column, and where other arrays stand beside them."""
    cells = pa.array([None, *(cell(each) for each in given_)], TENSORS)[1:]
    there = [each.get(name) for each in given_]
    numbers = [each for each in there if isinstance(each, np.ndarray)]
    found = stacked(cells, name)
    if len(numbers) < len(there) or len({(each.dtype, each.shape) for each in numbers}) > 1:
        assert found is None
    else:
        assert found is not None and same(found, np.stack(numbers))


def test_equal_shapes_are_stacked() -> None:
    pictures = [np.full((2, 3), i, np.float32) for i in range(3)]
    cells = pa.array([cell({"a": np.arange(i), "image": p}) for i, p in enumerate(pictures)], TENSORS)
    assert same(stacked(cells, "image"), np.stack(pictures)) and stacked(cells, "a") is None
    assert same(stacked(cells[1:], "image"), np.stack(pictures[1:]))


@settings(deadline=None)
@given(CELLS)
def test_a_cell_gives_back_what_it_was_given_also_through_arrow(given_: dict[str, Any]) -> None:
    made = cell(given_)
    stored = pa.array([made, None], TENSORS).to_pylist()
    assert stored == [made, None]
    for back in (arrays(made), arrays(stored[0])):
        assert list(back) == sorted(given_)
        assert all(same(back[name], given_[name]) for name in given_)


@settings(deadline=None)
@given(CELLS)
def test_a_cell_is_the_same_in_any_order_layout_and_byte_order(given_: dict[str, Any]) -> None:
    def other(value: np.ndarray | bytes) -> np.ndarray | bytes:
        if isinstance(value, bytes):
            return value
        return np.asarray(value, order="F").astype(value.dtype.newbyteorder(">"))

    assert cell({name: other(given_[name]) for name in reversed(given_)}) == cell(given_)
    assert all(array["digest"] == digest(array["data"]) for array in cell(given_))


def test_golden() -> None:
    """Ids are made of these: they may never change."""
    [made] = cell({"image": np.array([[1.5, -2.0]], np.float32)})
    assert made == {
        "name": "image", "dtype": "f32", "shape": [1, 2], "digest": "ec37c9ebcb086a55472f50f341213d37",
        "data": bytes.fromhex("0000c03f000000c0"), "uri": None,
    }  # fmt: skip


def test_the_bytes_of_a_file_depend_on_the_cell_alone(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for name, value in (("one", image), ("two", np.asfortranarray(image))):
        pq.write_table(pa.table({"inputs": pa.array([cell({"image": value})], TENSORS)}), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([{}, 1], object), "the array 'bad' holds Python objects"),
        (np.zeros(2, [("x", object)]), "the array 'bad' holds Python objects"),
        (np.zeros(2, bool), "the array 'bad' is of the type bool, which is none of u8"),
        (np.zeros(2, np.complex64), "the array 'bad' is of the type complex64"),
        (np.array(["text"]), "the array 'bad' is of the type <U4"),
        (np.array([[0, np.nan], [np.inf, 1]]), r"'bad' has 2 numbers that are not finite, the first at \[0, 1\] \(nan"),
        (np.array(-np.inf, np.float32), r"'bad' has 1 numbers that are not finite, the first at \[\] \(-inf\)"),
        (b"GIF89a", "the array 'bad' is bytes that begin neither a PNG nor a JPEG"),
    ],
)
def test_what_no_cell_can_hold_is_refused(value: Any, says: str) -> None:
    with pytest.raises(Refused, match=says):
        cell({"good": np.zeros(1), "bad": value})


def test_an_array_without_a_name_is_refused() -> None:
    with pytest.raises(Refused, match="must have a name"):
        cell({"": np.zeros(1)})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "pickle"}, "is of the type 'pickle', which is none of"),
        ({"shape": [2, 2]}, r"has 24 bytes, which is not i32 of the shape \[2, 2\]"),
        ({"shape": [-2, -3]}, "which is not i32 of the shape"),
        ({"dtype": "f64"}, "which is not f64 of the shape"),
        ({"data": b"\1" * 24}, "are not those that its digest names"),
        ({"dtype": "f32", "data": (nan := b"\0\0\xc0\x7f" * 6), "digest": digest(nan)}, r"numbers that are not finite"),
        ({"data": None, "uri": None}, "has neither bytes nor a place"),
        ({"data": None, "uri": "/etc/passwd"}, "not inside the folder"),
        ({"data": None, "uri": "../mask.bin"}, "not inside the folder"),
        ({"data": None, "uri": "gone.bin"}, "cannot be read from .*gone.bin: No such file"),
        ({"data": None, "uri": "other.bin"}, "in other.bin are not those that its digest names"),
        ({"data": None, "uri": "short.bin"}, "has 3 bytes, which is not i32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "other.bin").write_bytes(b"\1" * 24)
    (tmp_path / "short.bin").write_bytes(b"\1" * 3)
    with pytest.raises(Refused, match=says) as refused:
        arrays([entry(**changes)], tmp_path)
    assert str(refused.value).startswith(("the array 'mask'", "the bytes of the array 'mask'"))


def test_what_lies_elsewhere_is_read_from_the_folder_and_only_there(tmp_path: Path) -> None:
    made = entry()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mask.bin").write_bytes(made["data"])
    away = {**made, "data": None, "uri": "deep/mask.bin"}
    assert same(arrays([away], tmp_path)["mask"], arrays([made])["mask"])
    with pytest.raises(Refused, match="not inside the folder"):
        arrays([away])


def test_two_arrays_of_one_name_are_refused() -> None:
    with pytest.raises(Refused, match="two arrays called 'mask'"):
        arrays([entry(), entry()])


def test_the_digest_is_blake2b_of_the_bytes() -> None:
    assert digest(b"abc") == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
