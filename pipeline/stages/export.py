"""Export: what other tools are to read, with a card.  Reads answers, prompts, signals or a model, writes exports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import model_validator

from pipeline.contracts import DROPS, EVALS, PROMPTS, RESPONSES, SELECTIONS, SIGNALS
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, gate_of, stage
from pipeline.errors import Refused
from pipeline.kinds.exporter import Answer, Exporter
from pipeline.kinds.verifier import metric_of
from pipeline.model.folder import CAUSAL
from pipeline.report import card
from pipeline.tables import ids
from pipeline.tables.parquet import Scan

# What an exporter reads -> the folder that is handed over, and the one that says which rows, or what they are worth.
FOLDERS = {
    "answers": ("responses", "selections"),
    "prompts": ("prompts", "drops"),
    "signals": ("signals", "gates"),
    "model": ("models", "evals"),
}
COLUMNS = [
    "response_id", "prompt_id", "domain", "entry", "sample", "messages", "content", "reasoning", "answer", "verifier",
    "reference", "finish_reason", "inputs", "outputs",
]  # fmt: skip


class Params(StageParams):
    of: str
    by: str
    use: Use[Exporter]
    licence: str | None = None

    @model_validator(mode="after")
    def _folders(self) -> Params:
        of, by = FOLDERS[self._reads]
        # A selection, and a gate, bear the name of the folder that they are of.
        behind = {"answers": f"{by}/{self.of}/<name>", "prompts": f"{by}/{self.of.removeprefix('prompts/')}"}
        behind |= {"signals": f"{by}/{self.of}", "model": f"{by}/<name>"}
        wanted = behind[self._reads]
        if not self.of.startswith(f"{of}/"):
            raise ValueError(f"of: {self.use.name} reads {self._reads}: write `of: {of}/<name>`, not {self.of}")
        if not graph.inside(self.by, wanted.removesuffix("/<name>")) or self.by + "/<name>" == wanted:
            raise ValueError(f"by: write `by: {wanted}`, not {self.by}")
        return self

    @property
    def _reads(self) -> str:
        return self.use.method.traits["reads"]

    def inputs(self) -> dict[str, Input]:
        if self._reads == "answers":
            missing = f"no select entry has `of: {self.of}` and this name"
            return {"given": Input(self.of, RESPONSES), "beside": Input(self.by, SELECTIONS, missing=missing)}
        if self._reads == "prompts":
            missing = f"no curate entry is called {self.by.partition('/')[2]}"
            return {"given": Input(self.of, PROMPTS), "beside": Input(self.by, DROPS, missing=missing)}
        if self._reads == "signals":
            return {"given": Input(self.of, SIGNALS), "beside": gate_of(self.of)}
        missing = f"nothing judges {self.of}. Add an entry to evaluate with `model: {self.of.partition('/')[2]}`"
        return {"given": Input(self.of), "beside": Input(self.by, EVALS, missing=missing)}

    def output(self, instance: str) -> str:
        return f"exports/{instance}"

    def known(self, plan: Plan) -> dict[str, Any]:
        [own] = [i.label for i in plan.of("export") if i.params is self]
        return {"sources": graph.sources(plan, own)}

    def check(self, plan: Plan) -> list[str]:
        """Answers that may not be trained on; a model that no other tool opens, or that is not the one judged."""
        told, model = graph.told(plan), self.of.partition("/")[2]
        if self._reads == "answers":
            return graph.forbidden(graph.terms(told, graph.answering(told, self.of, self.by)))
        if self._reads == "signals":
            return graph.forbidden(graph.teachers_of(told, self.of))
        if self._reads == "prompts":
            return []
        networks = graph.named_by_model(plan, model, "network")
        judged = {getattr(i.params, "model", None) for i in plan.of("evaluate") if i.output == self.by}
        faults = (
            [] if judged <= {model} else [f"by: data/{self.by} is about {', '.join(map(str, judged))}, not {model}"]
        )
        if networks and CAUSAL not in networks:
            faults.append(f"of: {model} is a {', '.join(sorted(networks))}, and {self.use.name} takes a {CAUSAL}")
        if not networks:
            faults.append(f"of: {model} is no folder of weights, so there is nothing to hand over")
        return faults


@stage(writes=None, by="tree", finds=("verifier",))
def export(params: Params, given: Any, beside: Any, name: str, data: Path, out: Path, how: How) -> None:
    """Files in the shape that is asked for, and README.md: what they hold, how they are opened, and the licences and
    terms of all that they are made of. Nothing is sent anywhere."""
    told = json.loads((data / "plan" / "export" / f"{name}.json").read_text("utf-8"))
    reads = params.use.method.traits["reads"]
    if reads == "answers":
        shape = params.use.build()(answers(given, beside), out)
    elif reads == "prompts":
        dropped = set(beside.read(["prompt_id"])["prompt_id"].to_pylist())
        shape = params.use.build()(_prompts(given, dropped), out)
    elif reads == "signals":
        shape = params.use.build()(given.batches(list(SIGNALS.columns), 1000), out)
    else:
        shape = params.use.build()(given, out)
    if shape.files and not shape.rows:
        raise Refused(f"export.{name}: {params.use.name} found nothing to write in data/{params.of}")
    facts = card.Facts(name, params.of, params.by, params.use.name, params.licence, told["known"]["sources"])
    text = card.of_rows(facts, shape) if shape.files else card.of_model(facts, shape, given, beside)
    (out / "README.md").write_text(text, "utf-8")
    how.say(f"{shape.rows} rows" if shape.files else "a model's folder")


def _prompts(pool: Scan, dropped: set[str]) -> Iterator[dict[str, Any]]:
    for row in (row for part in range(pool.parts) for row in pool.at(part).pylist()):
        if row["prompt_id"] not in dropped:
            _refuse_arrays("prompt", row["prompt_id"], row)
            yield row


def answers(responses: Scan, selection: Scan) -> Iterator[Sequence[Answer]]:
    """The answers that a selection looked at, a list for every prompt, in the order of prompts and samples."""
    for part in range(responses.parts):
        looked = selection.at(part).read(["response_id", "kept", "weight"])
        rows = responses.at(part).read(COLUMNS)
        place = ids.places(ids.names(rows["response_id"]), ids.names(looked["response_id"]))
        rows = rows.append_column("place", [place]).filter(place >= 0)
        rows = rows.sort_by([(name, "ascending") for name in ("prompt_id", "entry", "sample")])
        kept, weights = looked["kept"].to_pylist(), looked["weight"].to_pylist()
        some: list[Answer] = []
        for batch in rows.to_batches(1000):
            for row in batch.to_pylist():
                if some and some[0].prompt_id != row["prompt_id"]:
                    yield some
                    some = []
                some.append(_answer(row, kept[row["place"]], weights[row["place"]]))
        if some:
            yield some


def _answer(row: dict[str, Any], kept: bool, weight: float) -> Answer:
    _refuse_arrays("response", row["response_id"], row)
    right = metric_of(row["verifier"], row["answer"], row["reference"])
    own = {name: row[name] for name in ("response_id", "prompt_id", "domain", "entry", "messages", "finish_reason")}
    said = {"content": row["content"] or "", "reasoning": row["reasoning"]}
    return Answer(**own, **said, kept=kept, weight=weight, right=None if right is None else right == 1)


def _refuse_arrays(what: str, id: str, row: dict[str, Any]) -> None:
    if row["inputs"] or row.get("outputs"):
        raise Refused(
            f"{what} {id} has {'inputs' if row['inputs'] else 'outputs'} that are no text, and every shape here holds "
            f"text alone: export a pool of words"
        )
