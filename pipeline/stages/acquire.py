"""Acquire: a model from the world, pinned.  Writes models/<name>."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.methods import Use
from pipeline.core.settings import Endpoint
from pipeline.core.stage import Input, Plan, WatchedParams, stage
from pipeline.errors import Refused
from pipeline.kinds.origin import Origin


class Params(WatchedParams):
    """`terms` is what a model's licence says of its answers, for the cards of students; `no-training` stops whoever
    would train on them. `licence` is that of the model itself."""

    use: Use[Origin]
    licence: str | None = None
    terms: str | None = None

    def inputs(self) -> dict[str, Input]:
        return {}

    def output(self, instance: str) -> str:
        return f"models/{instance}"

    def gives(self) -> frozenset[str]:
        return frozenset(self._trait("gives"))

    def names(self, kind: str) -> frozenset[str] | None:
        if kind not in ("backend", "network"):
            return frozenset()
        named = self._trait(kind)
        return frozenset([named] if isinstance(named, str) else named) if named is not None else None

    def _trait(self, name: str) -> Any:
        declared = self.use.method.traits.get(name)
        return declared(self.use.arguments) if callable(declared) else declared

    def check(self, plan: Plan) -> list[str]:
        """Parameters that do not go together, among themselves or with those of the model's endpoint."""
        faults = super().check(plan)
        try:
            self.use.build()
        except Refused as error:
            faults.append(str(error))
        for instance in plan.of("acquire"):
            if instance.params is self and instance.name in plan.settings.endpoints:
                faults += self._at(instance.name, plan.settings.endpoints[instance.name])
        return faults

    def _at(self, name: str, endpoint: Endpoint) -> Iterator[str]:
        where, given = f"run.endpoints.{name}", self.use.arguments
        if endpoint.max_cost is not None and given.get("price_out") is None:
            yield f"{where}.max_cost needs prices: write price_in and price_out, in US dollars per million tokens"
        if endpoint.batch is not None and given.get("n", 1) > 1:
            yield f"a line of a batch file asks for one answer: take `n` out, or `batch` out of {where}"
        if endpoint.batch is not None and given.get("read"):
            yield f"a batch file holds no texts to read: take `read` out, or `batch` out of {where}"


@stage(writes=None, by="tree")
def acquire(params: Params, out: Path) -> None:
    """A folder that `transformers` and `vllm serve` open, with `model.json`: its backend and its identity."""
    card = params.use.build()(out)
    (out / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")
