"""Acquire: a model from the world, pinned.  Writes models/<name>."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import Refused
from pipeline.stage import Input, UseOrigin, stage
from pipeline.watched import WatchedParams

if TYPE_CHECKING:
    from pipeline.plan import Plan


class Params(WatchedParams):
    use: UseOrigin

    def inputs(self) -> dict[str, Input]:
        return {}

    def output(self, instance: str) -> str:
        return f"models/{instance}"

    def gives(self) -> frozenset[str]:
        gives = self.use.method.traits["gives"]
        return frozenset(gives(self.use.arguments) if callable(gives) else gives)

    def check(self, plan: Plan) -> list[str]:
        """Parameters that do not go together, and a cap on the cost of a model whose prices are not known."""
        faults = super().check(plan)
        try:
            self.use.build()
        except Refused as error:
            faults.append(str(error))
        for instance in plan.of("acquire"):
            endpoint = plan.settings.endpoints.get(instance.name)
            if (
                instance.params is self
                and endpoint
                and endpoint.max_cost
                and self.use.arguments.get("price_out") is None
            ):
                faults.append(
                    f"run.endpoints.{instance.name}.max_cost needs prices: write price_in and price_out, in US dollars "
                    f"per million tokens"
                )
        return faults


@stage(writes=None, by="tree")
def acquire(params: Params, out: Path) -> None:
    """A folder that `transformers` and `vllm serve` open, with `model.json`: its backend and its identity."""
    card = params.use.build()(out)
    (out / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")
