"""Pictures: the bytes of a PNG or JPEG to an array, or a refusal in a sentence where no model could look at it."""

from __future__ import annotations

import io
import warnings

import numpy as np

from pipeline.errors import Refused

# Pixels of a picture at most; a file says how many it has before any is decoded.
MOST = 1 << 25
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
