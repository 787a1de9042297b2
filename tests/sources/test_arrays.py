"""Arrays and pictures of a user's own: an image folder, an NPZ, a table with a column of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.source import BadRow
from pipeline.tables.tensors import arrays
from tests.stages.ingesting import ingest
from tests.tables.test_pictures import said_to_be, saved

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def folder() -> str:
    for i, picture in enumerate(PICTURES):
        place = Path("pictures") / NAMES[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(picture))
    return "pictures"


def read(use: str, **arguments: Any) -> list[Any]:
    return list(find("source", use).factory(**arguments))


def test_a_folder_of_pictures_is_prompts() -> None:
    found = sorted(ingest(use="files.pictures", path=folder()), key=lambda row: row["source"])
    assert [row["reference"] for row in found] == ["cat", "cat", "dog", "dog"]
    assert [row["inputs"][0]["dtype"] for row in found] == ["png"] * 4 and found[0]["source"] == "pictures/cat/0.png"
    assert found[0]["messages"] == [{"role": "user", "content": ""}] and found[0]["solution"] == "cat"
    assert len({row["group"] for row in found}) == 4
    small = ingest(use="files.pictures", path="pictures", size=[4, 4], channels=1)
    assert {tuple(row["inputs"][0]["shape"]) for row in small} == {(4, 4, 1)}


@pytest.mark.parametrize(("data", "said"), [
    (b"no picture", "begin neither a PNG nor a JPEG"),
    (saved(PICTURES[0])[:60], "the picture is broken|its head is broken"),
    (saved(PICTURES[0], "RGBA"), "4 channels"),
    (said_to_be(10_000, 10_000), "100 megapixels"),
])  # fmt: skip
@pytest.mark.parametrize("size", [None, [4, 4]])
def test_a_bad_picture_is_named_by_its_file(data: bytes, said: str, size: list[int] | None) -> None:
    Path(folder(), "cat", "bad.png").write_bytes(data)
    said = said.replace("begin neither", "(begin|is) neither") if data == b"no picture" else said
    with pytest.raises(Refused, match=rf"1 of 5 rows cannot be used:\n.*({said}).*pictures/cat/bad.png"):
        ingest(use="files.pictures", path="pictures", size=size)


def test_an_npz_is_its_arrays_along_the_first_axis() -> None:
    np.savez("digits.npz", x=PICTURES, y=np.array([7, 7, 1, 2]))
    found = ingest(
        use="files.arrays", path="digits.npz", arrays={"image": "x"}, columns={"reference": "y", "solution": "y"},
        verifier="text.exact",
    )  # fmt: skip
    assert sorted((row["reference"], row["solution"]) for row in found) == [
        ("1", "1"),
        ("2", "2"),
        ("7", "7"),
        ("7", "7"),
    ]
    [first] = [row for row in found if row["source"] == "digits.npz:1"]
    np.testing.assert_array_equal(arrays(first["inputs"])["image"], PICTURES[0])


def test_a_broken_npz_is_refused() -> None:
    np.savez("long.npz", x=PICTURES, y=np.arange(3))
    np.savez("objects.npz", x=np.array([{}, []], dtype=object))
    Path("none.npz").write_bytes(b"PK\x03\x04 and nothing")
    for name, said in {"long": "equally long", "objects": "pickled", "none": "cannot be read as an NPZ"}.items():
        with pytest.raises(Refused, match=rf"{name}\.npz.*{said}"):
            read("files.arrays", path=f"{name}.npz")


def test_numbers_that_are_none_are_refused() -> None:
    np.savez("points.npz", x=np.array([[0.5, 1.0], [np.nan, 2.0]], np.float32), y=np.arange(2))
    with pytest.raises(Refused, match=r"1 of 2 rows cannot be used(.|\n)*not finite(.|\n)*points.npz:2"):
        ingest(use="files.arrays", path="points.npz", arrays={"points": "x"}, columns={"reference": "y"})


def test_a_column_of_pictures_is_read_undecoded() -> None:
    cells = [{"bytes": saved(p), "path": f"{i}.png"} for i, p in enumerate(PICTURES)]
    pq.write_table(pa.table({"image": cells, "label": [0, 1, 0, 1]}), "rows.parquet")
    given = {"arrays": {"image": "image"}, "columns": {"reference": "label"}}
    found = ingest(use="files.parquet", path="rows.parquet", **given)
    assert {row["inputs"][0]["dtype"] for row in found} == {"png"} and {row["reference"] for row in found} == {"0", "1"}


def test_a_data_set_of_pictures_is_read_undecoded() -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    cells = [{"bytes": saved(p), "path": None} for p in PICTURES]
    datasets.Dataset.from_dict({"image": cells, "label": ["a", "b", "a", "b"]}, features).save_to_disk("kept")
    found = ingest(use="hub.datasets", path="kept", arrays={"image": "image"}, columns={"reference": "label"})
    assert sorted(row["inputs"][0]["data"] for row in found) == sorted(saved(p) for p in PICTURES)
    [beside] = [
        row for row in read("hub.datasets", path=folder()) if row.columns["image"]["bytes"] == saved(PICTURES[2])
    ]
    assert not isinstance(beside, BadRow)


def test_classes_that_are_numbered_have_their_names(tmp_path: Path) -> None:
    """Of a data set that was saved, of one of Parquet files, and of an image folder; one that is missing has none."""
    features = datasets.Features({"label": datasets.ClassLabel(names=["dog", "cat"]), "n": datasets.Value("int64")})
    made = datasets.Dataset.from_dict({"label": [1, 0, None, -1], "n": [0, 1, 2, 3]}, features)
    made.save_to_disk("kept")
    Path("files").mkdir()
    made.to_parquet("files/train.parquet")
    for path in ("kept", "files"):
        rows = [row.columns for row in read("hub.datasets", path=path)]
        assert [(row["label"], row["n"]) for row in rows] == [("cat", 0), ("dog", 1), (None, 2), (None, 3)]
    found = ingest(use="hub.datasets", path=folder(), arrays={"image": "image"}, columns={"reference": "label"})
    assert sorted(row["reference"] for row in found) == ["cat", "cat", "dog", "dog"]


@pytest.mark.parametrize(("rows", "said"), [
    ([{"image": "a.png"}], "holds str and no array; `files.pictures` reads files"),
    ([{"image": [[1, 2], [3]]}], "lists of unequal lengths"),
    ([{"other": [1]}], "no column 'image', which `columns:` or `arrays:` names"),
])  # fmt: skip
def test_a_column_that_holds_no_array_is_refused(rows: list[dict], said: str) -> None:
    pq.write_table(pa.Table.from_pylist(rows), "rows.parquet")
    with pytest.raises(Refused, match=said):
        ingest(use="files.parquet", path="rows.parquet", arrays={"image": "image"})
