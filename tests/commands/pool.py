"""A workspace as it is before anything was asked: a pool, a model of it, and the graph that would follow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.contracts import DROPS, PROMPTS
from pipeline.core.stage import Instance, Plan
from pipeline.plan.resolve import resolve
from pipeline.tables import ids, parquet
from tests.servers import MODEL

ROOT = Path(__file__).parents[2]
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def params(url: str | None, *, evaluated: bool = False, **endpoint: object) -> dict[str, Any]:
    """A small graph from a teacher to examples; with an address the teacher is served there."""
    served = {"use": "remote.endpoint", "model": MODEL, "version": "1", "price_in": 1.0, "price_out": 2.0}
    teacher: dict[str, object] = {"use": "local.embedded", "name": "teacher"} if url is None else served
    pool = {"use": "procedural.tasks", "rows": 8, "seed": 1}
    judged = {"teacher": {"model": "teacher", "pool": "bench"}}
    return {
        "run": {"endpoints": {} if url is None else {"teacher": {"url": url, "retries": 0, **endpoint}}},
        "seed": 3,
        "acquire": {"teacher": teacher, "base": {"use": "local.embedded", "name": "base"}},
        "ingest": {"own": {"pool": "train", **pool}, "bench": {"pool": "bench", **pool, "seed": 5}},
        "curate": {"train": {"against": "bench"}},
        "generate": {"teacher": {"pool": "train", "model": "teacher", "k": 2, "temperature": 1.0}},
        "score": {
            "agreement": {"of": "responses/train", "use": "consistency.agreement"},
            "verified": {"of": "responses/train", "use": "verifier.correct"},
        },
        "quality": {"answers": {"of": "responses/train", "suite": "responses"}},
        "select": {"all": {"of": "responses/train", "use": "sampling.random", "budget_rows": 4}},
        "pack": {"all": {"of": "responses/train", "by": "all", "student": "base"}},
        "evaluate": judged if evaluated else {},
        **{section: {} for section in ("read", "gaps", "probe", "train", "distill")},
    }


def prompt(question: str, domain: str = "add", reference: str | None = None) -> dict[str, object]:
    """A row of `prompts`."""
    messages = [{"role": "user", "content": question}]
    verifier = None if reference is None else "text.exact"
    return {
        "prompt_id": ids.prompt_id(messages), "messages": messages, "domain": domain, "source": "test",
        "group": question, "verifier": verifier, "reference": reference,
    }  # fmt: skip


def workspace(
    given: Mapping[str, Any],
    folder: Path,
    prompts: Sequence[Mapping[str, object]],
    dropped: Sequence[str] = (),
) -> tuple[Plan, Path]:
    """The plan, and the data folder as `dvc repro` of what the entries of generate read would leave it."""
    resolved, data = resolve(given), folder / "data"
    parquet.write(PROMPTS, data / "prompts" / "train" / "own", 1, [PROMPTS.rows(prompts)])
    parquet.write(PROMPTS, data / "prompts" / "bench" / "bench", 1, [PROMPTS.rows(prompts[:4])])
    drops = [{"prompt_id": prompt_id, "rule": "exact", "evidence": "test"} for prompt_id in dropped]
    parquet.write(DROPS, data / "drops" / "train", 1, [DROPS.rows(drops)])
    for name in ("base", *(["teacher"] if not resolved.settings.endpoints else [])):
        shutil.copytree(ROOT / "data" / "embedded" / name, data / "models" / name)
        (data / "models" / name / "tokenizer").mkdir()
        for file in TOKENIZER:
            shutil.copyfile(ROOT / "data" / "embedded" / name / file, data / "models" / name / "tokenizer" / file)
        card = {"backend": "local.model", "model_id": name, "dtype": "float32"}
        (data / "models" / name / "model.json").write_text(json.dumps(card), "utf-8")
    if resolved.settings.endpoints:
        (data / "models" / "teacher").mkdir(parents=True)
        [use] = resolved.instances["acquire@teacher"].params.methods()
        card = use.build()(data / "models" / "teacher")
        (data / "models" / "teacher" / "model.json").write_text(json.dumps(card), "utf-8")
    return resolved, data


def teacher(resolved: Plan) -> Instance:
    """The entry of generate."""
    return resolved.instances["generate@teacher"]
