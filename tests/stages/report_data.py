"""A whole run's `data/`, made up: real plan, real tables, invented answers, some of them hostile."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import contracts
from pipeline.core.stage import SECTION_OF, Plan
from pipeline.plan.disk import write
from pipeline.plan.resolve import resolve
from pipeline.tables import ids, parquet

DOMAINS = ("add", "mul", "shift", "sort")
HOSTILE = (
    "<script>document.title='owned'</script>"
    "<img src=x onerror=\"document.title='owned'\">"
    '<img src="https://remote.invalid/pixel.png"><style>body{background:url(https://remote.invalid/b)}</style>'
    "</pre></blockquote>\x1b[31mred\x1b[0m \u202eesrever {{ 7 * 7 }}"
)
DOMAIN = "<script>document.title='domain'</script>"
TEACHER = {"add": 0.9, "mul": 0.75, "shift": 0.45, "sort": 0.6, DOMAIN: 0.7}
STUDENT = {"add": 0.8, "mul": 0.4, "shift": 0.25, "sort": 0.1, DOMAIN: 0.4}
LIFT = {"base": 0.0, "random_sft": 0.08, "coverage_sft": 0.2, "kd": 0.21}
PARAMS: dict[str, Any] = {
    "seed": 17,
    "acquire": {name: {"use": "local.embedded", "name": name} for name in ("teacher", "base")},
    "ingest": {
        "tasks": {"pool": "train", "use": "procedural.tasks", "rows": 100, "seed": 100},
        "held_out": {"pool": "bench", "use": "procedural.tasks", "rows": 100, "seed": 7},
    },
    "curate": {"train": {"against": "bench", "near": 0.85}},
    "generate": {
        "teacher": {"pool": "train", "model": "teacher", "k": 4, "temperature": 1.0},
        "base": {"pool": "train", "model": "base", "k": 2, "temperature": 1.0},
    },
    "score": {
        "agreement": {"of": "responses/train", "use": "consistency.agreement"},
        "verified": {"of": "responses/train", "use": "verifier.correct"},
    },
    "quality": {
        "answers": {"of": "responses/train", "suite": "responses"},
        "random_examples": {"of": "examples/random", "suite": "examples"},
        "coverage_examples": {"of": "examples/coverage", "suite": "examples"},
        "kd_signals": {"of": "signals/coverage/teacher", "suite": "signals"},
    },
    "gaps": {
        "main": {"of": "responses/train", "teacher": "teacher", "student": "base", "solved": "verified.score = 1"},
    },
    "select": {
        "random": {"of": "responses/train", "from": ["teacher"], "use": "sampling.random", "budget_tokens": 2000},
        "coverage": {
            "of": "responses/train", "from": ["teacher"], "use": "mixture.coverage", "by": "agreement.score",
            "prefer": 0.5, "where": "agreement.score >= 0.5", "budget_tokens": 2000,
        },
    },
    "pack": {
        "random": {"of": "responses/train", "by": "random", "student": "base"},
        "coverage": {"of": "responses/train", "by": "coverage", "student": "base"},
    },
    "probe": {"teacher": {"of": "coverage", "model": "teacher", "top_k": 4}},
    "train": {
        name: {"of": of, "student": "base", "epochs": 3, "objectives": [{"use": objective}]}
        for name, of, objective in (
            ("random_sft", "examples/random", "supervised.cross_entropy"),
            ("coverage_sft", "examples/coverage", "supervised.cross_entropy"),
            ("kd", "signals/coverage/teacher", "divergence.forward"),
        )
    },
    "evaluate": {
        name: {"model": name, "pool": "bench"} for name in ("base", "teacher", "random_sft", "coverage_sft", "kd")
    },
    "derive": {}, "read": {}, "distill": {}, "export": {},
}  # fmt: skip
PARTS = 2


def build(data: Path, params: dict[str, Any] = PARAMS, prompts: int = 60, items: int = 300) -> Plan:
    """Write plan, tables, curves, verdicts and records of a run with the sections of `params`."""
    known = {key: value for key, value in params.items() if key in {*SECTION_OF.values(), "seed", "run"}}
    resolved = resolve(known)
    write(resolved, data)
    rng = np.random.default_rng(0)
    train, bench = _prompts("train", prompts), _prompts("bench", items)
    _write(data, "prompts/train/tasks", train)
    _write(data, "prompts/bench/held_out", bench)
    _write(data, "drops/train", [
        {"prompt_id": train[0]["prompt_id"], "rule": "exact", "evidence": train[1]["prompt_id"]},
        {"prompt_id": train[2]["prompt_id"], "rule": "contaminated_ngram", "evidence": HOSTILE},
    ])  # fmt: skip
    answers = {
        "teacher": _answers(train, "teacher", TEACHER, 4, rng),
        "base": _answers(train, "base", STUDENT, 2, rng),
    }
    for model, rows in answers.items():
        _write(data, f"responses/train/{model}", rows)
    agreement = _agreement([row for rows in answers.values() for row in rows])
    _write(data, "scores/responses/train/agreement", [_score(*pair) for pair in agreement])
    _write(
        data, "scores/responses/train/verified", [_score(r, float(r["answer"] == r["reference"])) for r, _ in agreement]
    )
    _write(data, "gaps/main", [
        {"domain": d, "n": prompts // 5, "teacher_pass": TEACHER[d], "student_pass": STUDENT[d], "teacher_ppl": None,
         "student_ppl": None, "ratio": None, "gap": TEACHER[d] - STUDENT[d], "gap_low": TEACHER[d] - STUDENT[d] - 0.05,
         "gap_high": TEACHER[d] - STUDENT[d] + 0.05, "weight": 0.2, "cost_per_solved": 20.0 / TEACHER[d]}
        for d in sorted(TEACHER)
    ])  # fmt: skip
    share = {r["response_id"]: s for r, s in agreement}
    for name, allowed in (("random", 0.0), ("coverage", 0.5)):
        _selection(data, name, [row for rows in answers.values() for row in rows], share, allowed)
    for name in params["evaluate"]:
        lift = LIFT.get(re.sub(r"_s\d+$", "", name), 0.0)
        _write(
            data,
            f"evals/{name}",
            _evals(bench, name, TEACHER if name == "teacher" else {d: STUDENT[d] + lift for d in STUDENT}),
        )
    for name in params["train"]:
        steps = [
            {
                "step": s,
                "loss": (1.4 if name.startswith("kd") else 0.9) * math.exp(-s / 60) + 0.3 + rng.normal(0, 0.02),
                "lr": 1e-3,
                "places": 1000 if name != "kd" else 1020,
                **({"held_out": 0.4 + 20 / s} if name == "coverage_sft" and s % 100 == 0 else {}),
            }
            for s in range(10, 410, 10)
        ]
        _text(data / "models" / name / "training.jsonl", "".join(json.dumps(step) + "\n" for step in steps))
    for instance in resolved.of("quality"):
        expectations = [{"name": "rows", "success": True}, {"name": "errors", "success": instance.name != "answers"}]
        _text(data / instance.output / "verdict.json", json.dumps({"expectations": expectations}))
        _text(data / instance.output / "docs" / "index.html", "<!DOCTYPE html><title>quality</title>")
    for instance in resolved.instances.values():
        record = {"exactness": "exact", "rows": 100, "wall_s": 12.5, "cpu_s": 10.25, "finished": "2026-11-24T10:00:00Z"}
        _text(data / ".runs" / instance.stage / f"{instance.name}.json", json.dumps(record))
    return resolved


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _write(data: Path, folder: str, rows: list[dict[str, Any]]) -> None:
    table = contracts.TABLES[folder.split("/")[0]]
    parts = 1 if folder.startswith(("gaps", "prompts/bench", "evals")) else PARTS
    parquet.write(table, data / folder, parts, [table.rows(rows)])


def _prompts(pool: str, n: int) -> list[dict[str, Any]]:
    kinds = (*DOMAINS, DOMAIN)
    rows = []
    for i in range(n):
        messages = [{"role": "user", "content": f"{pool} {i}: {HOSTILE if i % 7 == 0 else 'add 1 2'}"}]
        rows.append(
            {
                "prompt_id": ids.prompt_id(messages),
                "messages": messages,
                "domain": kinds[i % len(kinds)],
                "source": "made up",
                "group": f"{pool}{i}",
                "level": i % 3,
                "verifier": "text.exact",
                "reference": str(i),
                "solution": None,
            }
        )
    return rows


def _answers(
    prompts: list[dict[str, Any]], model: str, skill: dict[str, float], k: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for prompt in prompts:
        ease = rng.beta(2 * skill[prompt["domain"]], 2 - 2 * skill[prompt["domain"]])
        for sample in range(k):
            right = rng.random() < ease
            answer = prompt["reference"] if right else f"wrong{rng.integers(3)}"
            content = f"{HOSTILE}#{answer}" if sample == 0 else f"work#{answer}"
            stopped = rng.random() < 0.97
            request = ids.digest(model, prompt["prompt_id"], sample)
            rows.append({
                "response_id": ids.response_id(request, content), "request_id": request,
                "prompt_id": prompt["prompt_id"], "messages": prompt["messages"], "domain": prompt["domain"],
                "verifier": prompt["verifier"], "reference": prompt["reference"], "entry": model, "model_id": model,
                "sample": sample, "seed": sample, "content": content, "reasoning": None, "answer": answer,
                "token_ids": None, "logprobs": None,
                "finish_reason": "stop" if stopped else "length", "error": None, "prompt_tokens": 16,
                "completion_tokens": 19, "cost_usd": None, "attempts": 1,
            })  # fmt: skip
    return rows


def _agreement(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
    siblings: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        siblings.setdefault((row["entry"], row["prompt_id"]), []).append(row["answer"])
    votes = [siblings[row["entry"], row["prompt_id"]] for row in rows]
    return [(row, own.count(row["answer"]) / len(own)) for row, own in zip(rows, votes, strict=True)]


def _score(row: dict[str, Any], score: float) -> dict[str, Any]:
    return {
        "response_id": row["response_id"],
        "prompt_id": row["prompt_id"],
        "score": score,
        "quantities": [],
        "detail": None,
    }


def _selection(data: Path, name: str, rows: list[dict[str, Any]], share: dict[str, float], allowed: float) -> None:
    chosen, examples = [], []
    seen: set[str] = set()
    for row in sorted(rows, key=lambda r: ids.draw(17, name, r["response_id"])):
        reason = (
            "where"
            if share[row["response_id"]] < allowed
            else "another_answer"
            if row["prompt_id"] in seen
            else "drawn"
        )
        reason = "other_entry" if row["entry"] != "teacher" else reason
        kept = reason == "drawn"
        seen |= {row["prompt_id"]} if kept else set()
        chosen.append({
            "response_id": row["response_id"], "prompt_id": row["prompt_id"], "domain": row["domain"], "kept": kept,
            "weight": float(kept), "reason": reason, "tokens": 35,
        })  # fmt: skip
        if kept:
            examples.append({
                "example_id": ids.digest(name, row["response_id"]), "prompt_id": row["prompt_id"],
                "domain": row["domain"], "token_ids": list(range(35)), "spans": [{"start": 16, "end": 35}],
                "weight": 1.0,
                "template_hash": "t", "tokenizer_hash": "t", "response_ids": [row["response_id"]],
            })  # fmt: skip
    _write(data, f"selections/responses/train/{name}", chosen)
    _write(data, f"examples/{name}", examples)


def _evals(prompts: list[dict[str, Any]], model: str, skill: dict[str, float]) -> list[dict[str, Any]]:
    # An item's difficulty is its own, so that a better model is right wherever a worse one is, but for some noise.
    rows = []
    for prompt in prompts:
        hard = 0.85 * ids.draw(1, "item", prompt["prompt_id"]) + 0.15 * ids.draw(1, model, prompt["prompt_id"])
        right = hard < skill[prompt["domain"]]
        sure = min(0.99, max(0.05, 1 - hard + 0.3 * ids.draw(2, model, prompt["prompt_id"])))
        rows.append({
            "task": "bench", "item_id": prompt["prompt_id"], "prompt_id": prompt["prompt_id"],
            "domain": prompt["domain"], "level": prompt["level"], "model": model, "content": HOSTILE,
            "prediction": prompt["reference"] if right else "wrong", "target": prompt["reference"],
            "metric": float(right), "measure": "accuracy", "confidence": sure, "finish_reason": "stop",
        })  # fmt: skip
    return rows
