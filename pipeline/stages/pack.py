"""Pack: kept conversations become tokenised examples.  Reads responses and a selection, writes examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveInt

from pipeline.contracts import EXAMPLES, RESPONSES, SELECTIONS, whole
from pipeline.core import graph
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.network import Network, Packed
from pipeline.kinds.verifier import metric_of
from pipeline.model.chat import Answers, TrainOn
from pipeline.model.folder import hashes, network_of
from pipeline.tables import ids
from pipeline.tables.lists import joined
from pipeline.tables.parquet import Scan
from pipeline.tables.sorting import cut, in_order
from pipeline.training.recipe import declared_network


class Params(StageParams):
    of: str
    by: str
    student: str
    max_length: PositiveInt = 4096
    train_on: TrainOn = "answer"
    answers: Answers = "last"
    targets: Literal["answer", "reference"] = "answer"
    equal: Literal["first", "sum"] = "first"

    def inputs(self) -> dict[str, Input]:
        return {
            "responses": Input(self.of, RESPONSES),
            "selection": Input(f"selections/{self.of}/{self.by}", SELECTIONS),
            "tokenizer": Input(f"models/{self.student}/tokenizer"),
        }

    def output(self, instance: str) -> str:
        return f"examples/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.student: frozenset({"form"})}

    def check(self, plan: Plan) -> list[str]:
        """A network that learns no text learns no thought; a model may forbid that its answers are trained on."""
        return [*self._thoughts(plan), *graph.forbidden(self.teachers(plan))]

    def teachers(self, plan: Plan) -> dict[str, str | None]:
        """The models whose answers are packed, with their terms."""
        [own] = [i.output for i in plan.of("pack") if i.params is self]
        return graph.teachers_of(graph.told(plan), own)

    def _thoughts(self, plan: Plan) -> list[str]:
        network = find("network", declared_network(plan, self.student))
        if network.traits.get("thoughts") and self.targets != "answer":
            return [
                f"targets: {self.targets}: a {network.name} such as {self.student} learns an answer's text; leave it "
                f"out, and let `use: recorded.solutions` give the answers that came with the data"
            ]
        if not network.traits.get("thoughts"):
            told = [("train_on", self.train_on, "answer"), ("answers", self.answers, "last")]
            text = f"a {network.name} such as {self.student} learns the answer alone; leave it out"
            return [f"{name}: {value}: {text}" for name, value, usual in told if value != usual]
        if self.train_on == "reasoning" and self.answers == "every":
            return ["answers: every: earlier answers have no thoughts apart; write `train_on: both`, or `answer`"]
        return []


# Rows that are dictionaries together.
BATCH = 1024
# Arms whose trained tokens differ by no more have equally many.
EQUAL = 0.01
COLUMNS = [
    "response_id", "prompt_id", "domain", "messages", "content", "reasoning", "answer", "verifier", "reference",
    "inputs", "outputs",
]  # fmt: skip


@stage(writes=EXAMPLES, by="part", finds=("verifier", "network"))
def pack(
    params: Params, responses: Scan, selection: Scan, tokenizer: Path, how: How, out: Path
) -> Iterator[pa.RecordBatch]:
    """One example per kept response; loss on the answer and its end token, or on the thought before it, or on both
    (`train_on`), and with `answers: every` on those of earlier turns. Equal examples become one, with the weight
    of the first or, as several teachers that name one class have a say each, with the sum (`equal: sum`). A classifier
    learns the outcome that the answer names, or with `targets: reference` the prompt's reference.

    The reward is what the answer's own verifier says of it.
    """
    network = find("network", network_of(tokenizer)).factory()
    template, form = hashes(tokenizer)
    kept = selection.read(["response_id", "kept", "weight", "tokens", "rank"])
    kept = kept.filter(kept["kept"])
    names = ids.names(kept["response_id"])
    told: Counter[str] = Counter()
    tokens: Counter[str] = Counter()

    def example(response: dict[str, Any], weight: float, rank: int | None) -> dict[str, Any]:
        packed = _packed(params, network, tokenizer, response)
        told.update(filter(None, [packed.told, _left_out(params, response)]))
        length = packed.length or len(packed.token_ids)
        if length > params.max_length:
            raise Refused(
                f"response {response['response_id']} has {length} tokens, more than max_length {params.max_length}. "
                f"Raise it, or let the selection say `where: completion_tokens < ...`."
            )
        tokens["trained"] += sum(end - start for start, end in packed.spans)
        inputs, outputs = packed.inputs or response["inputs"], response["outputs"]
        return {
            "example_id": ids.example_id(packed.token_ids, packed.spans, inputs, outputs),
            "prompt_id": response["prompt_id"],
            "domain": response["domain"],
            "token_ids": np.array(packed.token_ids, np.int32),
            "spans": [{"start": start, "end": end} for start, end in packed.spans],
            "weight": weight,
            "template_hash": template,
            "tokenizer_hash": form,
            "response_ids": [response["response_id"]],
            "inputs": inputs,
            "outputs": outputs,
            "reward": metric_of(response["verifier"], response["answer"], response["reference"]),
            "verifier": response["verifier"],
            "reference": response["reference"],
            "rank": rank,
        }

    def examples() -> Iterator[pa.RecordBatch]:
        for batch in responses.batches(COLUMNS, BATCH):
            place = ids.places(ids.names(batch["response_id"]), names)
            chosen = kept.take(pa.array(place[place >= 0]))
            tokens["counted"] += pc.sum(chosen["tokens"]).as_py() or 0
            rows = batch.filter(pa.array(place >= 0)).to_pylist()
            made = list(map(example, rows, chosen["weight"].to_pylist(), chosen["rank"].to_pylist()))
            columns = {name: [row[name] for row in made] for name in EXAMPLES.columns}
            yield EXAMPLES.batch(**{**columns, "token_ids": joined(columns["token_ids"], pa.int32())})

    for rows in cut(in_order(examples(), EXAMPLES.key, out), BATCH, "example_id"):
        yield _one_of_equal(rows, params.equal)
    for what, count in told.items():
        how.say(f"{count} of {len(kept)} answers: {what}")
    counted, trained = tokens["counted"], tokens["trained"]
    if counted and abs(trained - counted) > EQUAL * counted:
        how.say(
            f"{params.by} counted {counted} tokens, and {params.student} is trained on {trained} of them; for a budget "
            f"that counts those, let a reader `form.tokens` of {params.student} count them (`select: tokens`)"
        )


def _one_of_equal(rows: pa.Table, weight: str) -> pa.RecordBatch:
    """Of the rows of one example the first, with the responses of all and the least rank; and its own weight, or the
    sum of theirs."""
    names = ids.names(rows["example_id"])
    first = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    responses = np.split(whole(rows["response_ids"]).flatten().to_numpy(zero_copy_only=False), first[1:])
    made = rows.take(pa.array(first))
    columns: dict[str, Any] = dict(zip(made.column_names, made.columns, strict=True))
    columns["response_ids"] = [sorted(some) for some in responses]
    if weight == "sum":
        columns["weight"] = np.add.reduceat(rows["weight"].to_numpy(), first)
    if not rows["rank"].null_count:
        columns["rank"] = np.minimum.reduceat(rows["rank"].to_numpy(), first)
    return EXAMPLES.batch(**columns)


def _packed(params: Params, network: Network, form: Path, response: dict[str, Any]) -> Packed:
    """An answer as an example; what is wrong with it is said with its id."""
    more: dict[str, Any] = {}
    said = response["content"] if params.targets == "answer" else response["reference"] or ""
    if (params.train_on, params.answers) != ("answer", "last"):
        more = {"reasoning": response["reasoning"], "train_on": params.train_on, "answers": params.answers}
    pack: Any = network.pack
    try:
        packed: Packed = pack(form, response["messages"], said, response["inputs"], **more)
    except Refused as error:
        raise Refused(f"response {response['response_id']}: {error}") from error
    if said and params.targets == "reference" and min(packed.token_ids) < 0:
        raise Refused(
            f"response {response['response_id']}: the reference {said!r} is none of the outcomes that "
            f"{params.student} names: correct it, take its row out, or write `targets: answer`"
        )
    return packed


def _left_out(params: Params, response: dict[str, Any]) -> str:
    if params.train_on != "answer" or not response["reasoning"]:
        return ""
    return "came with reasoning, which is left out; `train_on: both` trains on it"
