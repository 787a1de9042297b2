"""Small models of this project's own, kept as transformers keeps its: `config.json` and `model.safetensors`.

Imports torch: whoever only names a method must not import it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from pipeline.nets import denoisers, graphs, letters, pairs, pictures, points

KINDS: tuple[type[PreTrainedModel], ...] = (
    *(pictures.Conv, pictures.Map, pictures.Patches, pictures.Described, pictures.Fused),
    *(graphs.Nodes, graphs.Geometric),
    *(points.Cloud, points.Surroundings),
    *(denoisers.Denoiser, denoisers.Canvas, denoisers.Unet),
    letters.Letters,
    pairs.Pair,
)
OURS = {each.config_class.model_type: each for each in KINDS}


def opened(folder: Path, auto: Any, dtype: str) -> Any:
    """The model of a folder, one of these or one that `auto` of transformers knows, in evaluation mode."""
    transformers.utils.logging.set_verbosity_error()
    kind = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    return OURS.get(kind, auto).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
