"""Pictures of a pool stand in the page: as PNG, no larger than they may be, and a fault in its own words."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.contracts import PROMPTS
from pipeline.report.tables import Tables
from pipeline.report.thumbnails import MOST, SIDE, Thumbnail, png, thumbnails
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan
from pipeline.tables.tensors import cell
from tests.tables.test_pictures import saved

DRAWN = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)


def pool(data: Path, name: str, given: list[Any]) -> None:
    """A pool whose prompts are about these arrays, `<b>` their reference."""
    rows = [
        {
            "prompt_id": ids.digest("prompt", name, i), "messages": [{"role": "user", "content": ""}], "domain": "d",
            "source": f"row {i}", "group": str(i), "verifier": "text.exact", "reference": f"<b>{i}",
            "inputs": None if each is None else cell({"image": each}),
        }
        for i, each in enumerate(given)
    ]  # fmt: skip
    parquet.write(PROMPTS, data / "prompts" / name / "given", 1, [PROMPTS.rows(rows)])


def found(data: Path) -> list[Thumbnail]:
    scans = [Scan(PROMPTS, tuple(sorted((data / "prompts").glob("*/*"))))]
    return thumbnails(Tables.of(data, scans))


def shown(one: Thumbnail) -> np.ndarray:
    assert one.shown is not None
    kind, _, text = one.shown.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)))


def test_numbers_and_files_are_shown(tmp_path: Path) -> None:
    pool(tmp_path, "some", [DRAWN, DRAWN[:, :, 0], saved(DRAWN), None])
    pool(tmp_path, "words", [None])
    made = {one.reference: shown(one) for one in found(tmp_path)}
    assert set(made) == {"<b>0", "<b>1", "<b>2"}
    np.testing.assert_array_equal(made["<b>0"], DRAWN)
    np.testing.assert_array_equal(made["<b>1"], DRAWN[:, :, 0])
    np.testing.assert_array_equal(made["<b>2"], DRAWN)


def test_there_are_few_and_each_is_small(tmp_path: Path) -> None:
    pool(tmp_path, "many", [np.full((8, 8, 1), i, np.uint8) for i in range(3 * MOST)])
    assert len(found(tmp_path)) == MOST
    wide = np.asarray(Image.open(io.BytesIO(base64.b64decode(png(np.zeros((300, 900, 3), np.uint8)).split(",")[1]))))
    assert wide.shape == (SIDE // 3, SIDE, 3)


@pytest.mark.parametrize("given", [DRAWN.astype(np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(5, np.uint8)])
def test_what_is_no_picture_is_said(tmp_path: Path, given: np.ndarray) -> None:
    pool(tmp_path, "some", [given])
    [one] = found(tmp_path)
    assert one.shown is None and "is no picture that a page can show" in one.fault
