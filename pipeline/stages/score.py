"""Score: one number per answer, from the text and its siblings.  Reads responses, writes scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import Use
from pipeline.core.stage import Input, Plan, WatchedParams, stage
from pipeline.kinds.rule import Alone, Rule
from pipeline.kinds.scorer import LABELLED, Learner, Scorer
from pipeline.scorers.rule import READS, kept_by
from pipeline.tables.labels import Labels, labels_of
from pipeline.tables.parquet import Scan

# Where people's labels lie, to be watched.
WATCHED = "data/labels"


class Params(WatchedParams):
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

    def files(self) -> list[str]:
        """Labels are files of the user's to a scorer that reads them."""
        labelled = self.use is not None and not LABELLED.keys().isdisjoint(self.use.method.traits["reads"])
        return [*super().files(), *([WATCHED] if labelled else [])]

    def check(self, plan: Plan) -> list[str]:
        if self.rule is None or self.rule.method.traits["sees"] == "text":
            return super().check(plan)
        return [f"rule: {self.rule.name} holds texts against each other or a benchmark, which is for `curate`"]


@stage(writes=SCORES, by="part")
def score(params: Params, responses: Scan, data: Path, out: Path) -> Iterator[pa.RecordBatch]:
    """A scorer sees whole prompts, with all models' answers to them: a part at once, or a large one in pieces."""
    labels = labels_of(data) if WATCHED in params.files() else None
    if params.use is not None:
        reads, scorer = params.use.method.traits["reads"], params.use.build()
        if params.use.method.traits.get("learns"):
            # Every part learns anew, and the same: that costs a reading of the table, and no part waits for another.
            scorer = cast(Learner, scorer)(_parts(reads, Scan(responses.table, responses.folders), labels))
    else:
        assert params.rule is not None
        rule = params.rule.build()
        assert isinstance(rule, Alone)
        reads, scorer = READS, kept_by(rule)

    def scored(rows: pa.Table) -> pa.RecordBatch:
        given = _labelled(rows, labels).select(reads) if labels is not None else rows
        return SCORES.batch(**scorer(given), prompt_id=rows["prompt_id"], response_id=rows["response_id"])

    yield from map(scored, responses.by_prompt(_stored(reads), out))


def _stored(reads: Sequence[str]) -> list[str]:
    """The columns of responses that are read for these."""
    return [c for c in dict.fromkeys(["response_id", "prompt_id", *reads]) if c not in LABELLED]


def _parts(reads: Sequence[str], responses: Scan, labels: Labels | None) -> Iterator[pa.Table]:
    """The whole table, part by part."""
    for part in range(responses.parts):
        rows = responses.at(part).read(_stored(reads))
        yield (rows if labels is None else _labelled(rows, labels)).select(reads)


def _labelled(rows: pa.Table, labels: Labels) -> pa.Table:
    """Answers with the columns LABELLED."""
    said = [labels.get(key) or {"good": None, "note": None} for key in rows["response_id"].to_pylist()]
    for name, column in zip(LABELLED, ("good", "note"), strict=True):
        rows = rows.append_column(name, pa.array([one[column] for one in said]).cast(LABELLED[name]))
    return rows
