"""Build: a model made of models.  Reads two models, which may be the same one, writes models/<name>."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.graph import named_by_model
from pipeline.core.methods import Use
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.backend import LOCAL
from pipeline.kinds.builder import Builder


class Params(StageParams):
    base: str
    donor: str
    use: Use[Builder]
    seed: int

    def inputs(self) -> dict[str, Input]:
        return {"base": Input(f"models/{self.base}"), "donor": Input(f"models/{self.donor}")}

    def output(self, instance: str) -> str:
        return f"models/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return dict.fromkeys((self.base, self.donor), frozenset({"gradients"}))

    def gives(self) -> frozenset[str]:
        return frozenset(LOCAL)

    def names(self, kind: str) -> frozenset[str] | None:
        return None if kind in ("backend", "network") else frozenset()

    def begins(self) -> str:
        return self.base

    def check(self, plan: Plan) -> list[str]:
        """Models of a network that the builder cannot take, and parameters that do not go together."""
        faults = [*self._networks(plan)]
        try:
            self.use.build()
        except Refused as error:
            faults.append(str(error))
        return faults

    def _networks(self, plan: Plan) -> Iterator[str]:
        traits = self.use.method.traits
        if not traits["donors"] and self.donor != self.base:
            yield f"donor: {self.use.name} takes nothing of one: write `donor: {self.base}`, the base once more"
        for role, model in (("base", self.base), ("donor", self.donor)):
            may, known = traits[f"{role}s"] or traits["bases"], named_by_model(plan, model, "network")
            if known and not known & set(may):
                yield f"{role}: {model} is a {', '.join(sorted(known))}, and {self.use.name} takes {' or '.join(may)}"


@stage(writes=None, by="tree", exactness="repeatable", imports=("torch", "transformers"))
def build(params: Params, base: Path, donor: Path, out: Path) -> None:
    """A plain transformers folder with its tokenizer and `model.json`, as `train` writes it."""
    card = params.use.build()(base, donor, out, params.seed)
    (out / "model.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")
