"""What was withdrawn: prompts that are left out wherever prompts are written, by their ids or by where they came from.

The rules lie in a file that git keeps, and hold no text of what they are about. `plan` reads it, so a new rule is part
of the identity of every instance that writes prompts; all that follows is made again where it differs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FILE = Path("withdrawn") / "rules.json"
# Kind of a rule -> what it names.
Rules = Mapping[str, Sequence[str]]


def read(data: Path) -> Rules:
    """The rules; empty if nothing was withdrawn."""
    file = data / FILE
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def add(data: Path, prompts: Collection[str] = (), sources: Collection[str] = ()) -> None:
    """Withdraw prompts with these ids, and all that come from these sources."""
    before, file = read(data), data / FILE
    found = {"prompts": prompts, "sources": sources}
    rules = {kind: sorted({*before.get(kind, ()), *names}) for kind, names in found.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rules, indent=1, ensure_ascii=False) + "\n", "utf-8")


def comes_from(source: str, wanted: str) -> bool:
    """Whether where a row came from, such as `mine.jsonl:17`, is this place or in this file."""
    return source == wanted or source.startswith(f"{wanted}:")


def without(batches: Iterator[pa.RecordBatch], rules: Rules) -> Iterator[pa.RecordBatch]:
    """Rows of `prompts` that no rule names."""
    named = pa.array(rules.get("prompts", ()), pa.string())
    for batch in batches:
        gone = pc.is_in(batch["prompt_id"], named).to_numpy(zero_copy_only=False)
        for wanted in rules.get("sources", ()):
            gone = gone | np.array([comes_from(source, wanted) for source in batch["source"].to_pylist()], bool)
        yield batch.filter(pa.array(~gone))
