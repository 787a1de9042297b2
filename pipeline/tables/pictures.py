"""Pictures: the bytes of a PNG or JPEG to an array, or a refusal in a sentence where no model could look at it."""

from __future__ import annotations

import base64
import io
import warnings

import numpy as np

from pipeline.errors import Refused
from pipeline.tables.ids import Cell
from pipeline.tables.tensors import FILES, arrays

# Pixels of a picture at most; a file says how many it has before any is decoded.
MOST = 1 << 25
# Pixels of a thumbnail in either direction.
THUMB = 256
# What the library calls the pictures that are read, with their channels.
MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}
CHANNELS = {1: "L", 3: "RGB"}


def pixels(data: bytes, size: tuple[int, int] | None = None, channels: int | None = None) -> np.ndarray:
    """A picture as numbers from 0 to 255, [height, width, channels]: 1 for grey, 3 for colours; made anew in another
    size (height, width) or another number of channels where these are given."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except Image.DecompressionBombError as error:
        raise Refused(f"the picture is too large to be decoded ({error}); make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Refused(
            "is no picture that can be read: it is neither a PNG nor a JPEG, or its head is broken"
        ) from error
    with picture:
        width, height = picture.size
        if width * height > MOST:
            raise Refused(
                f"the picture has {width * height / 1e6:.0f} megapixels ({width} x {height}), more than "
                f"{MOST / 1e6:.0f}; make it smaller"
            )
        if picture.mode not in MODES or "transparency" in picture.info:
            bands = len(picture.getbands()) + (picture.mode in MODES)
            raise Refused(
                f"the picture has {bands} channels of the mode {picture.mode}, and what is read is grey or RGB of 8 "
                f"bits without transparency; save it as such"
            )
        try:
            found = picture.convert(CHANNELS.get(channels or 0, MODES[picture.mode]))
        except (OSError, SyntaxError, ValueError) as error:
            raise Refused(f"the picture is broken: {error}") from error
        if size is not None and size != (height, width):
            found = found.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        array = np.asarray(found)
    return array[:, :, None] if array.ndim == 2 else array


def files(inputs: Cell | None) -> list[bytes]:
    """The pictures that a prompt is about, in the order of their names, each as a PNG or JPEG; refuses what is none."""
    found = []
    for name, value in arrays(inputs or []).items():
        if isinstance(value, bytes):
            pixels(value)
            found.append(value)
            continue
        grey = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 1)
        if value.dtype != np.uint8 or not (grey or (value.ndim == 3 and value.shape[2] == 3)):
            raise Refused(
                f"is about {name!r}, {value.dtype} of {list(value.shape)}, and only pictures can be shown beside "
                f"words: u8 of [height, width], or with 1 or 3 channels"
            )
        found.append(png(value))
    return found


def png(picture: np.ndarray) -> bytes:
    """A picture of numbers from 0 to 255, [height, width] or with 1 or 3 channels, as a file."""
    from PIL import Image

    flat = picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    written = io.BytesIO()
    Image.fromarray(flat).save(written, "PNG")
    return written.getvalue()


def thumbnail(file: bytes, most: int = THUMB) -> bytes:
    """The same picture, at most so many pixels wide and high."""
    array = pixels(file)
    scale = most / max(array.shape[:2])
    if scale >= 1:
        return file if len(file) <= most * most else png(array)
    height, width = (max(1, round(side * scale)) for side in array.shape[:2])
    return png(pixels(file, (height, width)))


def data_url(file: bytes) -> str:
    """A PNG or JPEG as an address that holds it."""
    kind = next(kind for kind, start in FILES.items() if file.startswith(start))
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
