"""Pack: kept conversations become tokenised examples.  Reads responses and a selection, writes examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from pipeline.contracts import EXAMPLES, RESPONSES, SELECTIONS
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.network import Network, Packed
from pipeline.kinds.verifier import metric_of
from pipeline.model.chat import TrainOn
from pipeline.model.folder import hashes, network_of
from pipeline.tables import ids
from pipeline.tables.lists import joined
from pipeline.tables.parquet import Scan
from pipeline.training.recipe import declared_network


class Params(StageParams):
    of: str
    by: str
    student: str
    max_length: PositiveInt = 4096
    train_on: TrainOn = "answer"

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
        """A network that learns no text learns no thought."""
        network = find("network", declared_network(plan, self.student))
        if self.train_on == "answer" or network.traits.get("thoughts"):
            return []
        return [f"train_on: {self.train_on}: a {network.name} such as {self.student} learns answers; leave it out"]


# Arms whose trained tokens differ by no more have equally many.
EQUAL = 0.01
COLUMNS = [
    "response_id", "prompt_id", "domain", "messages", "content", "reasoning", "answer", "verifier", "reference",
    "inputs", "outputs",
]  # fmt: skip


@stage(writes=EXAMPLES, by="part", finds=("verifier", "network"))
def pack(params: Params, responses: Scan, selection: Scan, tokenizer: Path, how: How) -> Iterator[pa.RecordBatch]:
    """One example per kept response; loss on the answer and its end token, or on the thought before it, or on both
    (`train_on`). Equal examples become one.

    The reward is what the answer's own verifier says of it.
    """
    network = find("network", network_of(tokenizer)).factory()
    told: Counter[str] = Counter()
    template, form = hashes(tokenizer)
    kept = {r["response_id"]: r for r in selection.pylist(["response_id", "kept", "weight", "tokens"]) if r["kept"]}
    counted = trained = 0
    rows: dict[str, dict[str, Any]] = {}
    for response in responses.pylist(COLUMNS):
        selected = kept.get(response["response_id"])
        if selected is None:
            continue
        packed = _packed(params, network, tokenizer, response)
        told.update(filter(None, [packed.told, _left_out(params, response)]))
        length = packed.length or len(packed.token_ids)
        if length > params.max_length:
            raise Refused(
                f"response {response['response_id']} has {length} tokens, more than max_length {params.max_length}. "
                f"Raise it, or let the selection say `where: completion_tokens < ...`."
            )
        inputs, outputs = packed.inputs or response["inputs"], response["outputs"]
        counted, trained = counted + selected["tokens"], trained + sum(end - start for start, end in packed.spans)
        example_id = ids.example_id(packed.token_ids, packed.spans, inputs, outputs)
        row = rows.setdefault(example_id, {
            "example_id": example_id,
            "prompt_id": response["prompt_id"],
            "domain": response["domain"],
            "token_ids": np.array(packed.token_ids, np.int32),
            "spans": [{"start": start, "end": end} for start, end in packed.spans],
            "weight": selected["weight"],
            "template_hash": template,
            "tokenizer_hash": form,
            "response_ids": [],
            "inputs": inputs,
            "outputs": outputs,
            "reward": metric_of(response["verifier"], response["answer"], response["reference"]),
            "verifier": response["verifier"],
            "reference": response["reference"],
        })  # fmt: skip
        row["response_ids"].append(response["response_id"])
    for what, count in told.items():
        how.say(f"{count} of {len(kept)} answers: {what}")
    if counted and abs(trained - counted) > EQUAL * counted:
        how.say(
            f"{params.by} counted {counted} tokens, and {params.student} is trained on {trained} of them; for a budget "
            f"that counts those, let a reader `form.tokens` of {params.student} count them (`select: tokens`)"
        )
    made = list(rows.values())
    columns = {name: [row[name] for row in made] for name in EXAMPLES.columns}
    columns["response_ids"] = [sorted(names) for names in columns["response_ids"]]
    yield EXAMPLES.batch(**{**columns, "token_ids": joined(columns["token_ids"], pa.int32())})


def _packed(params: Params, network: Network, form: Path, response: dict[str, Any]) -> Packed:
    """An answer as an example; what is wrong with it is said with its id."""
    thought: dict[str, Any] = {}
    if params.train_on != "answer":
        thought = {"reasoning": response["reasoning"], "train_on": params.train_on}
    pack: Any = network.pack
    try:
        return pack(form, response["messages"], response["content"], **thought)
    except Refused as error:
        raise Refused(f"response {response['response_id']}: {error}") from error


def _left_out(params: Params, response: dict[str, Any]) -> str:
    if params.train_on != "answer" or not response["reasoning"]:
        return ""
    return "came with reasoning, which is left out; `train_on: both` trains on it"
