"""Retrieve: prompts of a pool, each with what a table of knowledge says on it.

Reads prompts, and the prompts and responses of a pool of knowledge; writes prompts of another pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from pipeline.contracts import PROMPTS, RESPONSES
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import NAME, Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.retriever import Retriever
from pipeline.tables import ids
from pipeline.tables.parquet import Scan
from pipeline.text.columns import fields_of, filled

FIELDS = ["knowledge", "prompt"]
TEMPLATE = "This may help:\n{knowledge}\n\n{prompt}"


class Params(StageParams):
    of: str = Field(pattern=NAME)
    knowledge: str = Field(pattern=NAME)
    pool: str = Field(pattern=NAME)
    use: Use[Retriever]
    entries: tuple[str, ...] | None = Field(default=None, alias="from", min_length=1)
    match: Literal["prompt", "answer"] = "prompt"
    count: PositiveInt = 1
    least: NonNegativeFloat = 0.0
    own: bool = False
    template: str = TEMPLATE
    parts: int = Field(default=1, ge=1, le=graph.MOST_PARTS)

    @field_validator("template")
    @classmethod
    def _shows_both(cls, template: str) -> str:
        if sorted(fields_of(template)) != FIELDS:
            raise ValueError("names {knowledge} and {prompt} in braces, each once, and nothing else")
        return template

    @model_validator(mode="after")
    def _of_other_pools(self) -> Params:
        if self.pool in (self.of, self.knowledge):
            raise ValueError("pool: is a pool that it reads; name another")
        return self

    def inputs(self) -> dict[str, Input]:
        answered = f"nothing answers the pool {self.knowledge}. Add an entry to generate with `pool: {self.knowledge}`"
        return {
            "prompts": Input(f"prompts/{self.of}", PROMPTS),
            "asked": Input(f"prompts/{self.knowledge}", PROMPTS),
            "answers": Input(f"responses/{self.knowledge}", RESPONSES, missing=answered),
        }

    def output(self, instance: str) -> str:
        return f"prompts/{self.pool}/{instance}"

    def parts_of(self, tables: object) -> int:
        return self.parts

    def check(self, plan: Plan) -> list[str]:
        there = graph.entries_of(plan, f"responses/{self.knowledge}")
        faults = [
            f"from: no entry {entry!r} of generate answers the pool {self.knowledge}; there are {', '.join(there)}"
            for entry in self.entries or ()
            if entry not in there
        ]
        judged = {self.of, self.pool} & graph.benchmarks(plan)
        if self.own and judged:
            faults.append(
                f"own: would tell a student what is known of the very item that it is judged by, and {min(judged)} is "
                f"a benchmark; leave it out"
            )
        return faults + graph.unequal_parts(plan, self.pool, self.parts)


@dataclass(frozen=True)
class Lesson:
    """A row of knowledge: an answer, the text that a prompt is held against, and the item that it was written about."""

    id: str
    text: str
    key: str
    group: str


@stage(writes=PROMPTS, by="table")
def retrieve(
    params: Params, prompts: Scan, asked: Scan, answers: Scan, notes: dict, name: str, how: How
) -> Iterator[pa.RecordBatch]:
    """A prompt keeps all that it is judged by, and is shown the knowledge that is found for it; one for which nothing
    is found stays as it is. What was written about its own item is passed over, unless `own` is said."""
    rows = sorted({row["prompt_id"]: row for row in prompts.pylist()}.values(), key=lambda row: row["prompt_id"])
    lessons = _lessons(params, asked, answers)
    if not lessons:
        raise Refused(
            f"retrieve.{name}: there is no knowledge: no answer to the pool {params.knowledge} was finished and says "
            f"something"
        )
    # As many more as may have to be passed over.
    alike = Counter(lesson.group for lesson in lessons)
    count = params.count + (0 if params.own else max((alike[row["group"]] for row in rows), default=0))
    found = params.use.build()([lesson.key for lesson in lessons], [_said(row) for row in rows], count)
    made = []
    for row, at, scores in zip(rows, found.at.tolist(), found.scores.tolist(), strict=True):
        best = [lessons[i] for i, score in zip(at, scores, strict=True) if score > params.least]
        best = [lesson for lesson in best if params.own or lesson.group != row["group"]]
        made.append(_shown(row, best[: params.count], params, name) if best else row)
    helped = sum(new is not row for row, new in zip(rows, made, strict=True))
    notes |= {"prompts": len(rows), "knowledge": len(lessons), "found": helped}
    how.say(f"knowledge is found for {helped} of {len(rows)} prompts; the others stay as they are")
    yield PROMPTS.rows(made)


def _lessons(params: Params, asked: Scan, answers: Scan) -> list[Lesson]:
    """The finished answers to a pool of knowledge, in the order of their ids; what a prompt got twice is one."""
    of = {row["prompt_id"]: row for row in asked.pylist(["prompt_id", "messages", "group"])}
    first: dict[tuple[str, str], Lesson] = {}
    columns = ["response_id", "prompt_id", "entry", "content", "finish_reason"]
    for row in sorted(answers.pylist(columns), key=lambda row: row["response_id"]):
        chosen = row["entry"] in (params.entries or (row["entry"],)) and row["finish_reason"] == "stop"
        text = (row["content"] or "").strip()
        if chosen and text and row["prompt_id"] in of:
            about = of[row["prompt_id"]]
            key = _said(about) if params.match == "prompt" else text
            first.setdefault((row["prompt_id"], text), Lesson(row["response_id"], text, key, about["group"]))
    return list(first.values())


def _said(row: Mapping[str, Any]) -> str:
    """What a prompt says, without the system's turn, which many share."""
    return "\n".join(turn["content"] for turn in row["messages"] if turn["role"] != "system")


def _shown(row: Mapping[str, Any], lessons: list[Lesson], params: Params, name: str) -> dict[str, Any]:
    """A prompt with knowledge."""
    *before, last = row["messages"]
    knowledge = "\n\n".join(lesson.text for lesson in lessons)
    text = filled(params.template, {"knowledge": knowledge, "prompt": last["content"]})
    messages = [*before, {**last, "content": text}]
    return {
        **row,
        "prompt_id": ids.prompt_id(messages, row["inputs"]),
        "messages": messages,
        "source": f"retrieve.{name} of {row['prompt_id']}",
        "parent_ids": [row["prompt_id"], *(lesson.id for lesson in lessons)],
        "operator": params.use.name,
    }
