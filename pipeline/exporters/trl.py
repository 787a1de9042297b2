"""The four types of data set that TRL's trainers read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipeline.contracts import MESSAGES, TEXT
from pipeline.kinds.exporter import (
    FIELD,
    PARQUET,
    ROWS,
    Answer,
    Exporter,
    Prompts,
    Reasoning,
    Sets,
    Shape,
    exporter,
    kept,
)  # fmt: skip
from pipeline.tables.plain import Row, write_parquet

LOAD = '```python\nload_dataset("parquet", data_files="train-*.parquet", split="train")\n```\n\n'


def _turns(reasoning: Reasoning) -> pa.DataType:
    """Messages, with a field for thoughts where they have one."""
    fields = list(MESSAGES.value_type)
    return pa.list_(pa.struct([*fields, pa.field(FIELD, TEXT)] if reasoning == "field" else fields))


def _of_kept(columns: Callable[[Answer], Row], schema: pa.Schema, reasoning: Reasoning, use: str) -> Exporter:
    """A row for every answer that is kept."""

    def write(sets: Sets, out: Path) -> Shape:
        left: Counter[str] = Counter()
        count = write_parquet(out / PARQUET, schema, map(columns, kept(sets, reasoning, left)))
        return Shape(count, ROWS, LOAD + use, +left)

    return write


@exporter(reads="answers")
def sft(*, reasoning: Reasoning = "drop") -> Exporter:
    """Conversations that end with a kept answer, in the column `messages`: SFTTrainer, GKDTrainer, GOLDTrainer.

    Paper: none; "conversational language modeling" in the documentation of TRL 1.16.
    Differs: nothing.
    """
    return _of_kept(
        lambda answer: {"messages": [*answer.messages, answer.turn(reasoning)]},
        pa.schema({"messages": _turns(reasoning)}),
        reasoning,
        "For `SFTTrainer`, `GKDTrainer` and `GOLDTrainer`. `assistant_only_loss=True` needs a template with "
        "`{% generation %}`; `trl.prompt_completion` trains on the answer alone with any template.",
    )


@exporter(reads="answers")
def prompt_completion(*, reasoning: Reasoning = "drop") -> Exporter:
    """The conversation before a kept answer in `prompt`, the answer in `completion`: only that is trained on.

    Paper: none; "conversational prompt-completion" in the documentation of TRL 1.16.
    Differs: nothing.
    """
    return _of_kept(
        lambda answer: {"prompt": answer.messages, "completion": [answer.turn(reasoning)]},
        pa.schema({"prompt": MESSAGES, "completion": _turns(reasoning)}),
        reasoning,
        "For `SFTTrainer`, whose loss is then on the completion alone.",
    )


@exporter(reads="answers")
def dpo(
    *, rejected: Literal["wrong", "dropped"] = "wrong", most: int = 1, reasoning: Literal["drop", "inline"] = "drop"
) -> Exporter:
    """Pairs of a kept answer and one to the same prompt that was not kept: one that its verifier finds wrong, or any
    that was dropped; at most so many a prompt, no answer twice, no two of the same text.

    Paper: none; "preference with an explicit prompt" in the documentation of TRL 1.16: both hold the answer alone.
    Differs: nothing.
    """
    schema = pa.schema(dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES))

    def write(sets: Sets, out: Path) -> Shape:
        left: Counter[str] = Counter()

        def rows() -> Iterator[Row]:
            for answers in sets:
                good = [answer for answer in answers if answer.kept]
                bad = [a for a in answers if not a.kept and (rejected == "dropped" or a.right is False)]
                pairs = [pair for pair in zip(good, bad, strict=False) if pair[0].content != pair[1].content][:most]
                left["prompts without a pair"] += not pairs
                for chosen, other in pairs:
                    yield {
                        "prompt": chosen.messages,
                        "chosen": [chosen.turn(reasoning)],
                        "rejected": [other.turn(reasoning)],
                    }

        count = write_parquet(out / PARQUET, schema, rows())
        return Shape(count, ROWS, f"{LOAD}For `DPOTrainer`, and others that read preferences.", +left)

    return write


@exporter(reads="prompts")
def prompts() -> Exporter:
    """Conversations that end with the user's turn, in the column `prompt`: DistillationTrainer, GRPOTrainer; for
    functions of reward also `reference`, null where there is none.

    Paper: none; "conversational prompt-only" in the documentation of TRL 1.16.
    Differs: nothing.
    """

    def write(pool: Prompts, out: Path) -> Shape:
        schema = pa.schema({"prompt": MESSAGES, "reference": TEXT})
        rows: Iterator[dict[str, Any]] = ({"prompt": row["messages"], "reference": row["reference"]} for row in pool)
        use = f"{LOAD}For `DistillationTrainer` and `GRPOTrainer`, which hands `reference` to functions of reward."
        return Shape(write_parquet(out / PARQUET, schema, rows), ROWS, use, {})

    return write
