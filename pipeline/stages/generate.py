"""Generate: a model answers a pool, k times.  Reads prompts and drops, writes responses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator

from pipeline.asking.ask import ask, requests_for
from pipeline.contracts import DROPS, MESSAGES, PROMPTS, RESPONSES
from pipeline.core import graph
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, GenerateRequest, Sampling, Structured, card_of
from pipeline.kinds.verifier import answer_of
from pipeline.tables import ids
from pipeline.tables.parquet import Scan, batched
from pipeline.text.columns import NoColumn, fields_of, filled

# What a template of `elicit` may name: a prompt's last turn, and these columns of it.
NAMED = ("prompt", "domain", "level", "reference", "solution")

# The columns of a response that are what was answered.
ANSWERED = (
    "content", "reasoning", "token_ids", "logprobs", "finish_reason", "error", "prompt_tokens", "completion_tokens",
    "cost_usd", "attempts", "fingerprint", "outputs",
)  # fmt: skip


class Elicit(BaseModel):
    """What is asked in place of a prompt, while students are trained to answer the prompt itself.

    Paper: Shirgaonkar et al. 2024, Knowledge Distillation Using Frontier Open-Source LLMs (arXiv 2410.18588): a rich
    prompt for the teacher, the plain one for the student.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    system: str | None = None
    template: str = "{prompt}"

    @model_validator(mode="after")
    def _asks_something_else(self) -> Elicit:
        unknown = sorted(set(fields_of(self.template)) - set(NAMED))
        if unknown:
            raise ValueError(f"template: {{{unknown[0]}}} is no column of a prompt; there are {', '.join(NAMED)}")
        if self.system is None and self.template == "{prompt}":
            raise ValueError("asks what the prompt asks; write a `system:`, a `template:`, or leave it out")
        return self

    def asked(self, prompt: Mapping[str, Any]) -> list[dict[str, str]]:
        """The conversation that is asked in place of that of a row of prompts."""
        *before, last = prompt["messages"]
        if self.system is not None:
            before = [{"role": "system", "content": self.system}, *(m for m in before if m["role"] != "system")]
        try:
            text = filled(self.template, {**prompt, "prompt": last["content"]})
        except NoColumn as error:
            raise Refused(f"elicit: prompt {prompt['prompt_id']} has no such column: {error}") from error
        return [*before, {"role": "user", "content": text}]


class Params(StageParams):
    pool: str
    model: str
    k: PositiveInt
    temperature: NonNegativeFloat
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: PositiveInt = 64
    stop: tuple[str, ...] = ()
    structured: Structured | None = None
    elicit: Elicit | None = None
    domains: tuple[str, ...] | None = Field(default=None, min_length=1)
    max_failure_rate: float = Field(default=0.0, ge=0, le=1)
    seed: int

    def inputs(self) -> dict[str, Input]:
        return {
            "prompts": Input(f"prompts/{self.pool}", PROMPTS),
            "drops": Input(
                f"drops/{self.pool}",
                DROPS,
                missing=f"no curate entry is called {self.pool}. "
                f"Add `curate: {{{self.pool}: {{against: <the pool of the benchmark>}}}}`",
            ),
            "model": Input(f"models/{self.model}"),
        }

    def output(self, instance: str) -> str:
        return f"responses/{self.pool}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: frozenset({"generate"})}

    def asked(self) -> tuple[object, ...]:
        """All that decides an answer but the prompt and the number of the sample."""
        return self.pool, self.model, self.seed, self.sampling().content(), self.elicit

    def sampling(self) -> Sampling:
        """How each answer is drawn."""
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.stop, self.structured)

    def check(self, plan: Plan) -> list[str]:
        """A form that the model's engine cannot be held to; two entries that would ask the same of one prompt: their
        answers would have the same ids."""
        if self.structured and (beyond := self.structured.beyond()) and "structured" in graph.gives(plan, self.model):
            return [f"structured: {beyond}: no engine can be held to that; write it without, or list what may be said"]
        for other in plan.of("generate"):
            params = other.params
            if params is self:
                break
            assert isinstance(params, Params)
            if params.asked() == self.asked() and (
                None in (self.domains, params.domains) or set(self.domains or ()) & set(params.domains or ())
            ):
                return [
                    f"asks the same of the same model as generate.{other.name}, so their answers would be the same "
                    f"rows; give it another `seed`, or `domains` of its own"
                ]
        return []


def builds(params: Params, out: Path, notes: dict, how: How) -> None:
    """Say so, and note it, if the server was changed while it answered: its answers may not be one model's."""
    counts = Counter(Scan(RESPONSES, (out,)).read(["fingerprint"])["fingerprint"].drop_null().to_pylist())
    if len(counts) > 1:
        notes["builds"] = dict(sorted(counts.items()))
        each = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        how.say(f"the server says that it was changed on the way (system_fingerprint: {each}): look at its answers")


@stage(
    writes=RESPONSES,
    by="part",
    exactness="recorded",
    imports=("torch", "transformers"),
    finds=("verifier", "backend"),
    ends=builds,
)
def generate(params: Params, prompts: Scan, drops: Scan, model: Path, how: How, name: str) -> Iterator[pa.RecordBatch]:
    """Every prompt that was not dropped, answered k times; an answer once received is never asked for again."""
    # In one piece, of which rows are taken again and again.
    pool = pool_of(params, prompts, drops, name).combine_chunks()
    sampling, card = params.sampling(), card_of(model)
    requests = requests_of(params, pool, model)
    answers = ask(model, requests, sampling, how)
    _check_failures([(r, answers[r.request_id]) for r in requests], params.max_failure_rate)
    place = {prompt: i for i, prompt in enumerate(pool["prompt_id"].to_pylist())}
    # Some at a time: answers need much more room than their rows in a table.
    for some in batched(requests):
        told = [answers.pop(request.request_id) for request in some]
        of = pool.take([place[request.prompt_id] for request in some])
        yield RESPONSES.batch(
            response_id=[ids.response_id(r.sample_id, a.content, a.outputs) for r, a in zip(some, told, strict=True)],
            messages=of["messages"],
            asked=[request.messages for request in some] if params.elicit else None,
            entry=[name] * len(some),
            model_id=[card["model_id"]] * len(some),
            answer=[answer_of(v, a.content) for v, a in zip(of["verifier"].to_pylist(), told, strict=True)],
            **{column: of[column] for column in ("domain", "verifier", "reference", "inputs")},
            **{column: [getattr(r, column) for r in some] for column in ("request_id", "prompt_id", "sample", "seed")},
            **{column: [getattr(a, column) for a in told] for column in ANSWERED},
        )


def requests_of(params: Params, pool: pa.Table, model: Path) -> list[GenerateRequest]:
    """k requests per prompt of a pool, in its order."""
    if params.elicit is None:
        return requests_for(pool, model, params.sampling(), params.k, params.seed)
    rows = pool.select(["prompt_id", "messages", *NAMED[1:]]).to_pylist()
    asked = [params.elicit.asked(row) for row in rows]
    # Prompts that differ are different questions, even where a template leaves out in what.
    ids_ = [ids.digest("elicit", row["prompt_id"], messages) for row, messages in zip(rows, asked, strict=True)]
    columns = {"prompt_id": pa.array(ids_), "messages": pa.array(asked, MESSAGES)}
    columns |= {name: pool[name] for name in ("solution", "inputs", "truth")}
    requests = requests_for(pa.table(columns), model, params.sampling(), params.k, params.seed)
    return [replace(request, prompt_id=rows[i // params.k]["prompt_id"]) for i, request in enumerate(requests)]


def pool_of(params: Params, prompts: Scan, drops: Scan, name: str) -> pa.Table:
    """The prompts that an entry asks: those that were not dropped and are of its domains."""
    pool = prompts.read()
    dropped = pc.is_in(pool["prompt_id"], value_set=drops.read(["prompt_id"])["prompt_id"].combine_chunks())
    pool = pool.filter(pc.invert(dropped))
    if params.domains is not None:
        there = set(Scan(prompts.table, prompts.folders).read(["domain"])["domain"].to_pylist())
        unknown = sorted(set(params.domains) - there)
        if unknown:
            raise Refused(
                f"generate.{name}.domains: no prompt of data/prompts/{params.pool} is of "
                f"{', '.join(unknown)}; there are {', '.join(sorted(there))}"
            )
        pool = pool.filter(pc.is_in(pool["domain"], value_set=pa.array(params.domains)))
    return pool


def _check_failures(answered: Sequence[tuple[GenerateRequest, Answer]], most: float) -> None:
    """Refuse if too many requests failed for good; says the commonest causes, each with an example."""
    failed = [(request, answer.error) for request, answer in answered if answer.error is not None]
    if not failed or len(failed) <= most * len(answered):
        return
    examples: dict[str, GenerateRequest] = {}
    for request, error in failed:
        examples.setdefault(_cause(error), request)
    counts = Counter(_cause(error) for _, error in failed)
    lines = []
    for cause, count in counts.most_common(3):
        request = examples[cause]
        error = next(e for r, e in failed if r is request)
        text = " ".join(request.messages[-1]["content"].split())
        lines.append(
            f"  {count} x {error}\n      for example prompt {request.prompt_id}, sample {request.sample}: {text[:100]}"
        )
    raise Refused(
        f"{len(failed)} of {len(answered)} requests failed, more than max_failure_rate {most}; what was received is "
        f"kept, and only these are asked again. The commonest causes:\n" + "\n".join(lines)
    )


def _cause(error: str) -> str:
    """An error without the numbers in it, so that equal causes are counted together."""
    return re.sub(r"\d+", "0", error)
