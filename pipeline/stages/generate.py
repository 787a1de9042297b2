"""Generate: a model answers a pool, k times.  Reads prompts and drops, writes responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline import ids
from pipeline.asking import ask, requests_for
from pipeline.contracts import DROPS, PROMPTS, RESPONSES
from pipeline.errors import Refused
from pipeline.execution import How
from pipeline.judging import answer_of
from pipeline.protocol import Sampling, card_of
from pipeline.stage import Input, StageParams, stage
from pipeline.tables import Scan


class Params(StageParams):
    pool: str
    model: str
    k: PositiveInt
    temperature: NonNegativeFloat
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: PositiveInt = 64
    stop: tuple[str, ...] = ()
    max_failure_rate: float = Field(default=0.0, ge=0, le=1)
    seed: int

    def inputs(self) -> dict[str, Input]:
        return {
            "prompts": Input(f"prompts/{self.pool}", PROMPTS),
            "drops": Input(f"drops/{self.pool}", DROPS),
            "model": Input(f"models/{self.model}"),
        }

    def output(self, instance: str) -> str:
        return f"responses/{self.pool}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: frozenset({"generate"})}


@stage(
    writes=RESPONSES, by="part", exactness="recorded", imports=("torch", "transformers"), kinds=("verifier", "backend")
)
def generate(params: Params, prompts: Scan, drops: Scan, model: Path, how: How, name: str) -> Iterator[pa.RecordBatch]:
    """Every prompt that was not dropped, answered k times; an answer once received is never asked for again."""
    pool = prompts.read()
    dropped = pc.is_in(pool["prompt_id"], value_set=drops.read(["prompt_id"])["prompt_id"].combine_chunks())
    pool = pool.filter(pc.invert(dropped))
    sampling = Sampling(params.temperature, params.top_p, params.max_tokens, params.stop)
    model_id = card_of(model)["model_id"]
    requests = requests_for(pool, model_id, sampling, params.k, params.seed)
    answers = ask(model, requests, sampling, how)

    failed = [a.error for a in answers.values() if a.error is not None]
    if failed and len(failed) > params.max_failure_rate * len(requests):
        commonest = sorted(set(failed), key=failed.count, reverse=True)[:3]
        raise Refused(
            f"{len(failed)} of {len(requests)} requests failed, more than max_failure_rate {params.max_failure_rate}; "
            f"what was received is kept. The commonest causes:\n"
            + "\n".join(f"  {failed.count(c)} x {c}" for c in commonest)
        )
    prompt_of = {row["prompt_id"]: row for row in pool.to_pylist()}
    rows = []
    for request in requests:
        answer, prompt = answers[request.request_id], prompt_of[request.prompt_id]
        rows.append({
            "response_id": ids.response_id(request.request_id, answer.content),
            "request_id": request.request_id,
            "prompt_id": request.prompt_id,
            "messages": prompt["messages"],
            "domain": prompt["domain"],
            "verifier": prompt["verifier"],
            "reference": prompt["reference"],
            "model": name,
            "model_id": model_id,
            "sample": request.sample,
            "seed": request.seed,
            "content": answer.content,
            "reasoning": answer.reasoning,
            "answer": answer_of(prompt["verifier"], answer.content),
            "token_ids": answer.token_ids,
            "logprobs": answer.logprobs,
            "finish_reason": answer.finish_reason,
            "error": answer.error,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "cost_usd": answer.cost_usd,
        })  # fmt: skip
    yield RESPONSES.rows(rows)
