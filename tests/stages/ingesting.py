"""Ingest in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.contracts import PROMPTS
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.stages.ingest import Params
from pipeline.tables.parquet import Scan

SETTINGS = RunSettings()


def instance(**section: object) -> Instance:
    params = Params.model_validate({"pool": "train", **section})
    return Instance("ingest", "mine", params, {}, params.output("mine"), "")


def ingest(**section: object) -> list[dict]:
    run_instance(instance(**section), SETTINGS, Path("data"), Path())
    return Scan(PROMPTS, (Path("data/prompts/train/mine"),)).pylist()


def jsonl(*rows: object) -> str:
    Path("rows.jsonl").write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), "utf-8")
    return "rows.jsonl"


def asked(rows: list[dict]) -> list[str]:
    return sorted(row["messages"][-1]["content"] for row in rows)
