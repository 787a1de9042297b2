"""Score: one number per answer, from the text and its siblings.  Reads responses, writes scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import Use
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.kinds.rule import Alone, Rule
from pipeline.kinds.scorer import Learner, Scorer
from pipeline.scorers.rule import READS, kept_by
from pipeline.tables.parquet import Scan


class Params(StageParams):
    of: str = Field(pattern="^responses/")
    use: Use[Scorer] | None = None
    rule: Use[Rule] | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Params:
        if (self.use is None) == (self.rule is None):
            raise ValueError("write either `use:`, a scorer, or `rule:`, a rule that judges a text by itself")
        return self

    def inputs(self) -> dict[str, Input]:
        return {"responses": Input(self.of, RESPONSES)}

    def output(self, instance: str) -> str:
        return f"scores/{self.of}/{instance}"

    def check(self, plan: Plan) -> list[str]:
        if self.rule is None or self.rule.method.traits["sees"] == "text":
            return []
        return [f"rule: {self.rule.name} holds texts against each other or a benchmark, which is for `curate`"]


@stage(writes=SCORES, by="part")
def score(params: Params, responses: Scan, out: Path) -> Iterator[pa.RecordBatch]:
    """A scorer sees whole prompts, with all models' answers to them: a part at once, or a large one in pieces."""
    if params.use is not None:
        reads, scorer = params.use.method.traits["reads"], params.use.build()
        if params.use.method.traits.get("learns"):
            # Every part learns anew, and the same: that costs a reading of the table, and no part waits for another.
            scorer = cast(Learner, scorer)(_parts(reads, Scan(responses.table, responses.folders)))
    else:
        assert params.rule is not None
        rule = params.rule.build()
        assert isinstance(rule, Alone)
        reads, scorer = READS, kept_by(rule)

    def scored(rows: pa.Table) -> pa.RecordBatch:
        return SCORES.batch(**scorer(rows), prompt_id=rows["prompt_id"], response_id=rows["response_id"])

    yield from map(scored, responses.by_prompt(list(dict.fromkeys(["response_id", "prompt_id", *reads])), out))


def _parts(reads: Sequence[str], responses: Scan) -> Iterator[pa.Table]:
    """The whole table, part by part."""
    return (responses.at(part).read(list(reads)) for part in range(responses.parts))
