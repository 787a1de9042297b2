"""Sizes: the bytes that every output will take on the disk, from the rows to come and what a row of its table takes.

What lies there already is measured. Of the rest, a row's bytes are told by what cannot be compressed: 32 letters of a
hash are 16 bytes, a log-probability is 4, a token of text or its id about 2. That is a factor of two either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.graph import inside, upstream
from pipeline.core.stage import Instance, Plan, stage_named
from pipeline.tables.parquet import walk

ID, NUMBER, TOKEN, LOGPROB = 18, 4, 2, 4
# Stage -> the argument that its rows come from.
FROM = {
    "generate": "prompts", "evaluate": "prompts", "score": "responses", "read": "responses", "judge": "responses",
    "select": "responses", "pack": "responses", "probe": "examples", "transform": "signals",
}  # fmt: skip
# Stage -> the parameter that names the model which its own is as large as.
BEGINS = {"train": "student", "distill": "student", "build": "base"}
# What a column of a file takes beside its values.
COLUMN = 400
# Rows and tokens -> bytes, by table; `k` are the rows of one prompt, whose ids stand once.
ROW: Mapping[str, Callable[[float, int], float]] = {
    "responses": lambda tokens, k: 2 * ID + 2 * NUMBER + ID / k + tokens * (2 * TOKEN + LOGPROB),
    "scores": lambda tokens, k: ID + ID / k + 2 * NUMBER,
    "selections": lambda tokens, k: ID + ID / k + NUMBER,
    "examples": lambda tokens, k: 2 * ID + ID / k + 2 * NUMBER + 2 * TOKEN * tokens,
    "signals": lambda tokens, k: 2 * ID + ID / k + 2 * NUMBER + 2 * TOKEN * tokens,
    "evals": lambda tokens, k: ID + 2 * NUMBER + TOKEN * tokens,
}


@dataclass(frozen=True)
class Size:
    """What an output takes: measured, or told from the rows to come; None where nothing tells it."""

    label: str
    folder: str
    bytes: int | None
    measured: bool


def sizes(plan: Plan, data: Path, tokens: Mapping[str, float]) -> list[Size]:
    """The size of every output, upstream first; `tokens` are those of a mean answer, by the label that asks for it."""
    told = _Told(plan, data, tokens)
    return [told.size(instance) for instance in told.ordered()]


class _Told:
    """Rows and tokens of the outputs of a plan, each told once."""

    def __init__(self, plan: Plan, data: Path, tokens: Mapping[str, float]) -> None:
        self._plan, self._data, self._asked = plan, data, tokens
        self._makers = {i.output: i for i in plan.instances.values()}
        self._rows: dict[str, int | None] = {}

    def ordered(self) -> list[Instance]:
        reads, found = upstream(self._plan), dict[str, Instance]()

        def visit(label: str) -> None:
            for other in reads[label] if label not in found else ():
                visit(other)
            found.setdefault(label, self._plan.instances[label])

        for label in self._plan.instances:
            visit(label)
        return list(found.values())

    def size(self, instance: Instance) -> Size:
        place = self._data / instance.output
        measured = sum(file.stat().st_size for file in walk(place)) if place.is_dir() else None
        return Size(instance.label, instance.output, measured or self._coming(instance), measured is not None)

    def _coming(self, instance: Instance) -> int | None:
        params: Any = instance.params
        if instance.stage in BEGINS:
            base = self._data / "models" / getattr(params, BEGINS[instance.stage])
            return sum(file.stat().st_size for file in walk(base)) if base.is_dir() else None
        table = stage_named(instance.stage).writes
        if instance.stage not in FROM or table is None:
            return None
        rows, tokens = self.rows(instance), self._tokens(instance)
        if rows is None or tokens is None:
            return None
        each = ROW[table.name](tokens, max((getattr(i.params, "k", 1) for i in self._asking(instance)), default=1))
        if table.name == "signals":
            kept = getattr(params, "top_k", 0) * (TOKEN + LOGPROB)
            each += tokens * (kept / (2 if getattr(params, "store", "") == "compact" else 1) + 2 * LOGPROB)
        return round(each * rows) + COLUMN * len(table.columns) * self._parts(instance)

    def _above(self, instance: Instance) -> list[Instance]:
        """The instances that an instance has its rows from."""
        return [self._makers[folder] for folder in instance.inputs[FROM[instance.stage]]]

    def _asking(self, instance: Instance) -> list[Instance]:
        """The instances whose answers an output is about; itself if it asks."""
        if instance.stage in ("generate", "evaluate"):
            return [instance]
        return [one for above in self._above(instance) for one in self._asking(above)]

    def _tokens(self, instance: Instance) -> float | None:
        """Tokens of a mean answer of those that an output is about."""
        means = [self._mean(one) for one in self._asking(instance)]
        return None if None in means or not means else sum(mean or 0 for mean in means) / len(means)

    def _mean(self, asking: Instance) -> float | None:
        files = self._files(asking) if asking.stage == "generate" else []
        counts = [pc.mean(pq.ParquetFile(f).read(["completion_tokens"])["completion_tokens"]).as_py() for f in files]
        known = [count for count in counts if count is not None]
        if known:
            return sum(known) / len(known)
        return self._asked.get(asking.label, getattr(asking.params, "max_tokens", None))

    def _files(self, instance: Instance) -> list[Path]:
        return sorted((self._data / instance.output).glob("part-*.parquet"))

    def _parts(self, instance: Instance) -> int:
        """The files of a table: as many as the pool has that it is about."""
        if instance.stage not in FROM:
            return len(self._files(instance)) or getattr(instance.params, "parts", 1)
        return max((self._parts(above) for above in self._above(instance)), default=1)

    def rows(self, instance: Instance) -> int | None:
        """The rows that a table has or will have."""
        if instance.label not in self._rows:
            self._rows[instance.label] = self._counted(instance)
        return self._rows[instance.label]

    def _counted(self, instance: Instance) -> int | None:
        if files := self._files(instance):
            return sum(pq.read_metadata(file).num_rows for file in files)
        if instance.stage not in FROM:
            return None
        counts = [self.rows(above) for above in self._above(instance)]
        if None in counts:
            return None
        rows = sum(count or 0 for count in counts) * getattr(instance.params, "k", 1)
        if instance.stage != "pack":
            return rows
        [selection] = [self._makers[folder] for folder in instance.inputs["selection"]]
        budget, tokens = selection.params.budget(), self._tokens(instance)
        return min(
            rows, budget.get("rows", rows), round(budget["tokens"] / tokens) if "tokens" in budget and tokens else rows
        )


def lines(found: list[Size], of: Callable[[int], str]) -> list[str]:
    """The sizes for a person, of what is yet to be made, and the sum of all."""
    coming = [size for size in found if not size.measured]
    told = [size for size in coming if size.bytes is not None]
    lines = [f"  {of(size.bytes or 0):>8}  {size.label}" for size in sorted(told, key=lambda size: -(size.bytes or 0))]
    unknown = [size.label for size in coming if size.bytes is None and not inside(size.folder, "gates")]
    total = sum(size.bytes or 0 for size in found)
    there = sum(size.bytes or 0 for size in found if size.measured)
    return [
        f"on the disk, to a factor of two: {of(total)}, {of(there)} of them there; as much again in DVC's cache",
        *lines,
        *([f"  not told: {', '.join(unknown)}"] if unknown else []),
    ]
