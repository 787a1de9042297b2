"""Score: one number per answer, from the text and its siblings.  Reads responses, writes scores."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pydantic import Field

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import Use
from pipeline.core.stage import Input, StageParams, stage
from pipeline.kinds.scorer import Scorer
from pipeline.tables.parquet import Scan


class Params(StageParams):
    of: str = Field(pattern="^responses/")
    use: Use[Scorer]

    def inputs(self) -> dict[str, Input]:
        return {"responses": Input(self.of, RESPONSES)}

    def output(self, instance: str) -> str:
        return f"scores/{self.of}/{instance}"


@stage(writes=SCORES, by="part")
def score(params: Params, responses: Scan) -> Iterator[pa.RecordBatch]:
    """A scorer sees a whole part at once: all answers to a prompt, of every model, lie in the same part."""
    yield _scored(params.use, responses)


def _scored(use: Use[Scorer], responses: Scan) -> pa.RecordBatch:
    """The scores of a part. What was read for them is gone before they are written."""
    rows = responses.read(list(dict.fromkeys(["prompt_id", *use.method.traits["reads"]])))
    # Half of what reading took was for decoding.
    pa.default_memory_pool().release_unused()
    found = use.build()(rows)
    rows = rows.select(["prompt_id"])
    # Nothing is made of the ids, and they are larger than what scores are made of.
    return SCORES.batch(**found, prompt_id=rows["prompt_id"], response_id=responses.read(["response_id"])["response_id"])
