"""Data sets for LLaMA-Factory: JSON lines, and the entry of `dataset_info.json` that it finds them by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.kinds.exporter import LINES, Answer, Exporter, Sets, Shape, exporter, kept
from pipeline.tables.plain import Row, write_lines

TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "system_tag": "system",
}  # fmt: skip
SPOKEN = {"user": "human", "assistant": "gpt", "system": "system"}


def _alternates(answer: Answer) -> bool:
    """Whether the user and the model take turns, which both shapes want, behind one system's turn at most."""
    roles = [message["role"] for message in answer.messages]
    roles = roles[1:] if roles[:1] == ["system"] else roles
    return all(role == ("user", "assistant")[i % 2] for i, role in enumerate(roles)) and len(roles) % 2 == 1


def _written(
    columns: Callable[[Answer], Row], entry: Mapping[str, Any], name: str, reasoning: Literal["drop", "inline"]
) -> Exporter:
    def write(sets: Sets, out: Path) -> Shape:
        left: Counter[str] = Counter()

        def rows() -> Iterator[Row]:
            for answer in kept(sets, reasoning, left):
                if _alternates(answer):
                    yield columns(answer)
                else:
                    left["conversations in which user and model do not take turns"] += 1

        count = write_lines(out / LINES, rows())
        info = {name: {"file_name": LINES, **entry}}
        (out / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", "utf-8")
        use = f"`llamafactory-cli train` with `dataset_dir:` this folder and `dataset: {name}`."
        return Shape(count, LINES, use, +left)

    return write


@exporter(reads="answers")
def sharegpt(*, name: str = "stillhouse", reasoning: Literal["drop", "inline"] = "drop") -> Exporter:
    """Conversations as lists of `from` and `value`, under a name in `dataset_info.json`.

    Paper: none; "sharegpt" in LLaMA-Factory's `data/README.md`.
    Differs: a conversation in which user and model do not take turns is left out and counted, as it would be there.
    """

    def columns(answer: Answer) -> Row:
        turns = [*answer.messages, answer.turn(reasoning)]
        return {"conversations": [{"from": SPOKEN[turn["role"]], "value": turn["content"]} for turn in turns]}

    entry = {"formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": TAGS}
    return _written(columns, entry, name, reasoning)


@exporter(reads="answers")
def alpaca(*, name: str = "stillhouse", reasoning: Literal["drop", "inline"] = "drop") -> Exporter:
    """The last question in `instruction`, the answer in `output`, earlier pairs of both in `history`, and `system`.

    Paper: none; "alpaca" in LLaMA-Factory's `data/README.md`.
    Differs: `input` is empty, since a question is not told from what it is about.
    """

    def columns(answer: Answer) -> Row:
        system = [m["content"] for m in answer.messages if m["role"] == "system"]
        *before, last = [m["content"] for m in answer.messages if m["role"] != "system"]
        return {
            "instruction": last,
            "input": "",
            "output": answer.turn(reasoning)["content"],
            "system": system[0] if system else "",
            "history": [list(pair) for pair in zip(before[::2], before[1::2], strict=True)],
        }

    names = {"prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history"}
    return _written(columns, {"formatting": "alpaca", "columns": names}, name, reasoning)
