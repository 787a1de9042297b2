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
    reads = params.use.method.traits["reads"]
    rows = responses.read(list(dict.fromkeys(["response_id", "prompt_id", *reads])))
    scorer = params.use.build()
    yield SCORES.batch(response_id=rows["response_id"], prompt_id=rows["prompt_id"], **scorer(rows))
