"""Acquire: a model from the world, pinned.  Writes models/<name>."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.stage import Input, UseOrigin, stage
from pipeline.watched import WatchedParams


class Params(WatchedParams):
    use: UseOrigin

    def inputs(self) -> dict[str, Input]:
        return {}

    def output(self, instance: str) -> str:
        return f"models/{instance}"

    def gives(self) -> frozenset[str]:
        gives = self.use.method.traits["gives"]
        return frozenset(gives(self.use.arguments) if callable(gives) else gives)


@stage(writes=None, by="tree")
def acquire(params: Params, out: Path) -> None:
    """A folder that `transformers` and `vllm serve` open, with `model.json`: its backend and its identity."""
    card = params.use.build()(out)
    (out / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")
