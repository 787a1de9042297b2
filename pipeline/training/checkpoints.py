"""Checkpoints of a training: everything that its next step depends on, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from pipeline.kinds.feed import Feed
from pipeline.training import shards
from pipeline.training.ranks import here, over_ranks
from pipeline.training.shadow import Shadow
from pipeline.training.terms import Term

COMPLETE = "complete"
KEPT = 2
BEST = "best.safetensors"


class Checkpoints:
    """A folder of `checkpoint-<steps>`: the weights of all parts and of shadows, each part's optimizer, what
    objectives remember, the rows that a feed drew, and the curve. All ranks read them, the first one writes; of what
    lies over the ranks each writes and reads its part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(
        self,
        parts: Mapping[str, nn.Module],
        shadows: Mapping[str, Shadow],
        optimizers: Mapping[str, torch.optim.Optimizer],
        terms: Sequence[Term],
        feed: Feed | None,
    ) -> None:
        """Name what is saved and restored."""
        self.split = {name: part for name, part in parts.items() if shards.is_split(part)}
        self.modules = nn.ModuleDict({name: part for name, part in parts.items() if name not in self.split})
        self.shadows, self.feed = shadows, cast(Any, feed)
        self.optimizers = {name: each for name, each in optimizers.items() if name not in self.split}
        self.split_by = {name: each for name, each in optimizers.items() if name in self.split}
        objectives: list[Any] = [term.objective for term in terms]
        self.stateful = {str(number): each for number, each in enumerate(objectives) if hasattr(each, "state")}

    def save(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Keep the state after the last point of the curve, of which each rank may have a part; older checkpoints but
        one are removed."""
        place = self.folder / f"checkpoint-{len(curve)}"
        if here().first:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        for name, part in self.split.items():
            over_ranks({})
            shards.save(part, self.split_by[name], place / f"shards-{name}")
        if here().first:
            self._finish(place, curve)

    def _finish(self, place: Path, curve: Sequence[Mapping[str, float]]) -> None:
        """Keep what all ranks hold alike, and say that a checkpoint is whole."""
        _save(self.modules, place / "parts.safetensors")
        for name, shadow in self.shadows.items():
            _save(shadow.module, place / f"{name}.safetensors")
        for name, optimizer in self.optimizers.items():
            torch.save(optimizer.state_dict(), place / f"optimizer-{name}.pt")
        for number, objective in self.stateful.items():
            save_file(objective.state(), place / f"objective-{number}.safetensors")
        if self.feed is not None and hasattr(self.feed, "kept"):
            pq.write_table(self.feed.kept(), place / "drawn.parquet")
        (place / "curve.json").write_text(json.dumps(list(curve)), "utf-8")
        (place / COMPLETE).touch()
        for old in sorted(self._whole())[:-KEPT]:
            shutil.rmtree(self.folder / f"checkpoint-{old}")

    def resume(self) -> list[dict[str, float]]:
        """Restore the newest whole checkpoint and return its curve; an empty one if there is none."""
        place = newest(self.folder)
        if place is None:
            return []
        _load(self.modules, place / "parts.safetensors")
        for name, shadow in self.shadows.items():
            _load(shadow.module, place / f"{name}.safetensors")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(torch.load(place / f"optimizer-{name}.pt", weights_only=True))
        for name, part in self.split.items():
            shards.load(part, self.split_by[name], place / f"shards-{name}")
        for number, objective in self.stateful.items():
            objective.restore(load_file(place / f"objective-{number}.safetensors"))
        if self.feed is not None and hasattr(self.feed, "kept"):
            self.feed.restore(pq.read_table(place / "drawn.parquet"))
        curve: list[dict[str, Any]] = json.loads((place / "curve.json").read_text("utf-8"))
        return curve

    def keep_best(self, module: nn.Module) -> None:
        """Keep a student in the place of the one that was the best before. A training that goes on from an older
        checkpoint finds the same ones again."""
        if not here().first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _save(module, self.folder / f"{BEST}.new")
        (self.folder / f"{BEST}.new").replace(self.folder / BEST)

    def load_best(self, module: nn.Module) -> None:
        """Make a student the best one; the first rank's alone is looked at after this."""
        if here().first:
            _load(module, self.folder / BEST)

    def _whole(self) -> list[int]:
        return [int(p.parent.name.split("-")[1]) for p in self.folder.glob(f"checkpoint-*/{COMPLETE}")]


def _save(module: nn.Module, file: Path) -> None:
    """All of a module; of one with weights in four bits, which never learn, all others."""
    others = _beside_four_bits(module)
    if others is None:
        save_model(module, str(file))
    else:
        save_file({name: weight.detach().contiguous() for name, weight in others.items()}, file)


def _load(module: nn.Module, file: Path) -> None:
    others = _beside_four_bits(module)
    if others is None:
        load_model(module, str(file))
        return
    found = load_file(file)
    with torch.no_grad():
        for name, weight in others.items():
            weight.copy_(found[name])


def _beside_four_bits(module: nn.Module) -> dict[str, nn.Parameter] | None:
    """The weights of a module beside those in four bits, if it has such."""
    weights = dict(module.named_parameters())
    others = {name: weight for name, weight in weights.items() if weight.is_floating_point()}
    return None if len(others) == len(weights) else others


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; those that a kill has torn are removed."""
    found = {int(p.name.split("-")[1]): p for p in folder.glob("checkpoint-*")}
    whole = {step: path for step, path in found.items() if (path / COMPLETE).exists()}
    for step in found.keys() - whole.keys() if here().first else ():
        shutil.rmtree(found[step])
    return whole[max(whole)] if whole else None
