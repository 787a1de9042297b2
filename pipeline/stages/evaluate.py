"""Evaluate: a model against a benchmark.  Reads prompts, writes evals.

Greedy generation and the row's own verifier, nothing else, so that a student is judged as it would be used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import PositiveInt

from pipeline.asking.ask import ask, requests_for
from pipeline.contracts import EVALS, PROMPTS
from pipeline.core.run import How
from pipeline.core.stage import Input, StageParams, stage
from pipeline.kinds.backend import Answer, Sampling
from pipeline.kinds.verifier import answer_of, by_place, metric_of
from pipeline.tables.graphs import UNKNOWN
from pipeline.tables.parquet import Scan


class Params(StageParams):
    model: str
    pool: str
    max_tokens: PositiveInt = 64

    def inputs(self) -> dict[str, Input]:
        return {"prompts": Input(f"prompts/{self.pool}", PROMPTS), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"evals/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: frozenset({"generate"})}


@stage(
    writes=EVALS, by="part", exactness="repeatable", imports=("torch", "transformers"), finds=("verifier", "backend")
)
def evaluate(params: Params, prompts: Scan, model: Path, how: How) -> Iterator[pa.RecordBatch]:
    """The greedy answer to every item, right or wrong, with the probability that the model gave to it."""
    pool = prompts.read()
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=params.max_tokens)
    requests = requests_for(pool, model, sampling, k=1, seed=0)
    answers = ask(model, requests, sampling, how)
    rows = []
    for request, item in zip(requests, pool.to_pylist(), strict=True):
        answer = answers[request.request_id]
        prediction = answer_of(item["verifier"], answer.content) if answer.finish_reason == "stop" else None
        rows += [{
            "task": params.pool,
            "prompt_id": item["prompt_id"],
            "domain": item["domain"],
            "level": item["level"],
            "model": params.model,
            "metric": metric_of(item["verifier"], place["prediction"], place["target"]),
            "measure": "accuracy",
            "finish_reason": answer.finish_reason,
            **place,
        } for place in _places(item, answer, prediction)]  # fmt: skip
    yield EVALS.rows(rows)


def _places(item: Mapping[str, Any], answer: Answer, prediction: str | None) -> Iterator[dict[str, Any]]:
    """What is judged of an answer: all of it, or what it says at each place."""
    if item["verifier"] is None or item["reference"] is None or not by_place(item["verifier"]):
        yield {
            "item_id": item["prompt_id"],
            "content": answer.content,
            "prediction": prediction,
            "target": item["reference"],
            "confidence": _confidence(answer.logprobs),
        }
        return
    targets = item["reference"].split("\n")
    said = prediction.split("\n") if prediction is not None else []
    each = said if len(said) == len(targets) else [None] * len(targets)
    for number, (one, target) in enumerate(zip(each, targets, strict=True)):
        if target == UNKNOWN:
            continue
        yield {
            "item_id": f"{item['prompt_id']}/{number}",
            "content": one,
            "prediction": one,
            "target": target,
            "confidence": _confidence((answer.logprobs or [])[number : number + 1] or None),
        }


def _confidence(logprobs: Sequence[float | None] | None) -> float | None:
    """The probability of an answer; null if one of its tokens has none."""
    known = [value for value in logprobs or () if value is not None]
    return None if logprobs is None or len(known) < len(logprobs) else math.exp(sum(known))
