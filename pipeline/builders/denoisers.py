"""Denoisers that make their samples in another number of steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pydantic import PositiveInt

from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model.folder import TOKENIZER_FILES, finish

NETWORKS = ("points.denoiser", "images.denoiser")


@builder(bases=NETWORKS, donors=(), keeps=True, random=False)
def steps(*, count: PositiveInt = 1) -> Builder:
    """The base, which makes its samples in so many steps: with one it is what a generator of one step begins as, and
    the control of one.

    Paper: Song et al. 2021 (DDIM, arXiv 2010.02502), samples in fewer steps.
    Differs: nothing.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        for name in ("config.json", "model.safetensors", *TOKENIZER_FILES):
            if (base / name).exists():
                shutil.copyfile(base / name, out / name)
        config = json.loads((out / "config.json").read_text("utf-8"))
        text = json.dumps({**config, "steps": count}, indent=2, sort_keys=True) + "\n"
        (out / "config.json").write_text(text, "utf-8")
        return finish(out, json.loads((base / "model.json").read_text("utf-8"))["dtype"])

    return make
