"""Data sets for axolotl: JSON lines, and the lines of its configuration that read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.kinds.exporter import FIELD, LINES, Exporter, Reasoning, Sets, Shape, exporter, kept
from pipeline.tables.plain import Row, write_lines

CONFIG = f"""\
datasets:
  - path: {LINES}
    ds_type: json
    type: chat_template
    field_messages: messages
    message_property_mappings:
      role: role
      content: content
    message_field_training: training
"""


@exporter(reads="answers")
def chat(*, reasoning: Reasoning = "drop") -> Exporter:
    """Conversations with the model's own template (`type: chat_template`), in which the last turn alone is trained on.

    Paper: none; "chat_template" in axolotl's documentation of data sets of conversations.
    Differs: nothing.
    """

    def write(sets: Sets, out: Path) -> Shape:
        left: Counter[str] = Counter()

        def rows() -> Iterator[Row]:
            for answer in kept(sets, reasoning, left):
                before = [{**message, "training": False} for message in answer.messages]
                yield {"messages": [*before, {**answer.turn(reasoning), "training": True}]}

        more = f"      {FIELD}: {FIELD}\n"
        config = CONFIG.replace("      content: content\n", "      content: content\n" + more * (reasoning == "field"))
        (out / "datasets.yaml").write_text(config, "utf-8")
        use = "Put the lines of `datasets.yaml` into axolotl's configuration, with the path as it is seen from there."
        return Shape(write_lines(out / LINES, rows()), LINES, use, +left)

    return write
