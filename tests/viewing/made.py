"""A run to be looked at: the invented one of the report, with signals of a teacher and a memo of students' readings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.kinds.backend import PLAIN, Reading, Tokens, card_of, engine_of
from pipeline.memo.memo import Memo, reading_key
from pipeline.model.folder import finish
from pipeline.tables import ids, parquet
from pipeline.tables.parquet import Scan
from tests.stages import report_data

ROOT = Path(__file__).parents[2]
EMBEDDED = ROOT / "data" / "embedded" / "base"
# Ids of the embedded tokenizer's tokens, one of which breaks a line.
LETTERS = 5


def build(root: Path) -> None:
    """Write `root/data`."""
    data = root / "data"
    report_data.build(data)
    rows = Scan(EXAMPLES, (data / "examples/coverage",)).pylist()
    for row in rows:
        row["token_ids"], row["spans"] = [LETTERS + place for place in range(8)], [{"start": 5, "end": 8}]
    parquet.write(EXAMPLES, data / "examples/coverage", report_data.PARTS, [EXAMPLES.rows(rows)])
    signals = [
        {**row, "teacher_id": "t", "tail_mass": [0.1] * 3, "target_logprob": [-0.01, -0.9, -6.0], "temperature": 1.0}
        for row in rows
    ]
    parquet.write(SIGNALS, data / "signals/coverage/teacher", report_data.PARTS, [SIGNALS.rows(signals)])
    for name in ("base", "kd", "coverage_sft"):
        model(data / "models" / name)


def model(folder: Path) -> None:
    """A copy of the embedded base, as another model."""
    shutil.copytree(EMBEDDED, folder, dirs_exist_ok=True)
    card = {**finish(folder, "float32"), "model_id": ids.digest(folder.name)}
    (folder / "model.json").write_text(json.dumps(card), "utf-8")


def kept(data: Path) -> dict[str, Any]:
    """An example, of which one response was made."""
    return Scan(EXAMPLES, (data / "examples/coverage",)).pylist()[0]


def remember(data: Path, model: str, example: dict[str, Any], logprobs: list[float]) -> None:
    """Put what a model says of an example into the memo."""
    places = [place for span in example["spans"] for place in range(span["start"], span["end"])]
    card = card_of(data / "models" / model)
    tokens = Tokens(example["example_id"], example["token_ids"], places, example["inputs"])
    key = reading_key(tokens, card["model_id"], engine_of(card), PLAIN)
    Memo(data / ".memo").put_readings({key: Reading(key, np.array(logprobs, np.float32))}, paid=False)
