"""Answers that came with the data: no model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import PLAIN, Answer, Backend, GenerateRequest, Reading, Sampling, Tokens, Want, backend
from pipeline.tables.tensors import said_of
from pipeline.text.thinking import split_thinking


@backend(gives=("generate",), solutions=True, shown=True)
def solutions(*, folder: Path, card: dict[str, Any], how: How) -> AbstractContextManager[Backend]:
    """Each prompt's own `solution`: human answers, or worked solutions of a procedure, as a teacher's answers. One that
    has none but arrays as its truth is answered with these.

    Paper: none; it makes a supervised data set a special case of distillation.
    Differs: nothing.
    """
    return nullcontext(_Solutions())


class _Solutions:
    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        for request in requests:
            if request.solution is None and request.truth:
                yield Answer(request.request_id, said_of(request.truth), "stop", outputs=request.truth)
                continue
            if request.solution is None:
                raise Refused(
                    f"prompt {request.prompt_id} has no solution; recorded.solutions answers with that column"
                )
            reasoning, content = split_thinking(request.solution)
            yield Answer(request.request_id, content, "stop", reasoning=reasoning or None)

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        raise Refused("recorded.solutions holds answers and no model; it cannot read")
