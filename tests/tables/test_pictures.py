"""Pictures are read as they are, made in another size, or refused in a sentence."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import Refused
from pipeline.tables.pictures import data_url, files, pixels, png, thumbnail
from pipeline.tables.tensors import cell

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def saved(array: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    """A picture's file."""
    out = io.BytesIO()
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(out, kind)
    return out.getvalue()


def said_to_be(width: int, height: int) -> bytes:
    """The head of a PNG that says how large it is, and hardly any picture behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_a_png_is_its_numbers() -> None:
    np.testing.assert_array_equal(pixels(saved(RGB)), RGB)
    np.testing.assert_array_equal(pixels(saved(RGB[:, :, 0])), RGB[:, :, :1])


def test_a_jpeg_is_read() -> None:
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    assert np.abs(pixels(saved(flat, kind="JPEG")).astype(int) - flat).max() < 6


def test_it_is_made_in_another_size_and_in_grey() -> None:
    assert pixels(saved(RGB), (4, 5), 1).shape == (4, 5, 1)
    assert pixels(saved(RGB[:, :, 0]), channels=3).shape == (6, 9, 3)
    np.testing.assert_array_equal(pixels(saved(RGB), (6, 9)), RGB)


@pytest.mark.parametrize(("data", "said"), [
    (b"GIF89a" + b"\0" * 40, "neither a PNG nor a JPEG"),
    (saved(RGB)[:30], "its head is broken|broken"),
    (saved(RGB)[:-40], "the picture is broken"),
    (saved(RGB, "RGBA"), "4 channels of the mode RGBA"),
    (saved(RGB, "LA"), "2 channels of the mode LA"),
    (saved(RGB, "CMYK", "JPEG"), "4 channels of the mode CMYK"),
    (saved(RGB[:, :, 0].astype(np.uint16) * 99), "of the mode I;16"),
    (said_to_be(10_000, 10_000), "has 100 megapixels"),
    (said_to_be(20_000, 20_000), "too large to be decoded"),
])  # fmt: skip
def test_what_no_model_could_look_at_is_refused(data: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "100" in said or "too large" in said:
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(Refused, match=said):
        pixels(data)


def test_numbers_become_a_file_of_the_same_numbers() -> None:
    for array in (RGB, RGB[:, :, :1], RGB[:, :, 0]):
        np.testing.assert_array_equal(pixels(png(array)), array.reshape(6, 9, -1))
    jpeg = saved(RGB, kind="JPEG")
    made = files(cell({"b": jpeg, "a": RGB}))
    assert made == [png(RGB), jpeg] and files(None) == []
    assert [data_url(each).split(",")[0] for each in made] == ["data:image/png;base64", "data:image/jpeg;base64"]


def test_a_thumbnail_is_small_and_no_larger_than_its_picture() -> None:
    assert pixels(thumbnail(png(np.repeat(RGB, 100, 1)), 30)).shape == (1, 30, 3)
    assert pixels(thumbnail(png(RGB), 3)).shape == (2, 3, 3)
    assert thumbnail(png(RGB), 64) == png(RGB)
