"""Pack: kept conversations become tokenised examples.  Reads responses and a selection, writes examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pydantic import PositiveInt

from pipeline.contracts import EXAMPLES, RESPONSES, SELECTIONS
from pipeline.core.stage import Input, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.verifier import metric_of
from pipeline.model.chat import Chat
from pipeline.tables import ids
from pipeline.tables.parquet import Scan


class Params(StageParams):
    of: str
    by: str
    student: str
    max_length: PositiveInt = 4096

    def inputs(self) -> dict[str, Input]:
        return {
            "responses": Input(self.of, RESPONSES),
            "selection": Input(f"selections/{self.of}/{self.by}", SELECTIONS),
            "tokenizer": Input(f"models/{self.student}/tokenizer"),
        }

    def output(self, instance: str) -> str:
        return f"examples/{instance}"


COLUMNS = [
    "response_id", "prompt_id", "domain", "messages", "content", "answer", "verifier", "reference", "inputs", "outputs",
]  # fmt: skip


@stage(writes=EXAMPLES, by="part", finds=("verifier",))
def pack(params: Params, responses: Scan, selection: Scan, tokenizer: Path) -> Iterator[pa.RecordBatch]:
    """One example per kept response; loss on the answer and its end token. Equal examples become one.

    The reward is what the answer's own verifier says of it.
    """
    chat = Chat(tokenizer)
    kept = {r["response_id"]: r["weight"] for r in selection.pylist(["response_id", "kept", "weight"]) if r["kept"]}
    rows: dict[str, dict] = {}
    for response in responses.pylist(COLUMNS):
        weight = kept.get(response["response_id"])
        if weight is None:
            continue
        rendered = chat.example(response["messages"], response["content"])
        if len(rendered.token_ids) > params.max_length:
            raise Refused(
                f"response {response['response_id']} has {len(rendered.token_ids)} tokens, more than max_length "
                f"{params.max_length}. Raise it, or let the selection say `where: completion_tokens < ...`."
            )
        inputs, outputs = response["inputs"], response["outputs"]
        example_id = ids.example_id(rendered.token_ids, rendered.spans, inputs, outputs)
        row = rows.setdefault(example_id, {
            "example_id": example_id,
            "prompt_id": response["prompt_id"],
            "domain": response["domain"],
            "token_ids": rendered.token_ids,
            "spans": [{"start": start, "end": end} for start, end in rendered.spans],
            "weight": weight,
            "template_hash": chat.template_hash,
            "tokenizer_hash": chat.tokenizer_hash,
            "response_ids": [],
            "inputs": inputs,
            "outputs": outputs,
            "reward": metric_of(response["verifier"], response["answer"], response["reference"]),
            "verifier": response["verifier"],
            "reference": response["reference"],
        })  # fmt: skip
        row["response_ids"].append(response["response_id"])
    yield EXAMPLES.rows({**row, "response_ids": sorted(row["response_ids"])} for row in rows.values())
