"""A few pictures of each pool that is about pictures, small enough to stand in the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import Refused
from pipeline.report.tables import Tables
from pipeline.tables.pictures import CHANNELS, pixels
from pipeline.tables.tensors import arrays

# Pictures of a pool, and how wide or high one is at most.
MOST, SIDE = 12, 64


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a pool with its reference; `shown` is it as a PNG in an address, or why there is none."""

    pool: str
    reference: str
    shown: str | None
    fault: str = ""


def thumbnails(tables: Tables) -> list[Thumbnail]:
    """The pictures of each pool whose prompts have the lowest ids, of those that lie in the table."""
    found = []
    for pool in dict.fromkeys(folder.split("/")[1] for folder in tables.under("prompts")):
        rows = tables.rows(
            "SELECT coalesce(reference, ''), shown FROM (SELECT prompt_id, reference, "
            f"list_filter(inputs, lambda a: a.name = 'image')[1] AS shown FROM {tables.source(f'prompts/{pool}')}) "
            f"WHERE shown.data IS NOT NULL ORDER BY prompt_id LIMIT {MOST}"
        )
        found += [_thumbnail(pool, reference, image) for reference, image in rows]
    return found


def _thumbnail(pool: str, reference: str, image: dict[str, Any]) -> Thumbnail:
    try:
        return Thumbnail(pool, reference, png(_numbers(image)))
    except Refused as error:
        return Thumbnail(pool, reference, None, str(error))


def _numbers(image: dict[str, Any]) -> np.ndarray:
    """The numbers [H, W, C] of a picture, from 0 to 255."""
    array = arrays([image])["image"]
    if isinstance(array, bytes):
        return pixels(array)
    picture = array[:, :, None] if array.ndim == 2 else array
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in CHANNELS:
        raise Refused(f"{image['dtype']} of {image['shape']} is no picture that a page can show")
    return picture


def png(picture: np.ndarray) -> str:
    """A picture as an address that holds it, no larger than SIDE in either direction."""
    from PIL import Image

    made = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    made.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    made.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
