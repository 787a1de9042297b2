"""No model: made-up answers, to try a graph with one's own prompts before a model, a key or a GPU is there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import PLAIN, Answer, Backend, GenerateRequest, Reading, Sampling, Tokens, Want, backend
from pipeline.tables import ids
from pipeline.tables.parquet import batched

TASKS = re.compile(r"^\d+\. (\S.*)$", re.M)
SUM = re.compile(r"(\d+) ?([-+*]) ?(\d+)", re.ASCII)
LONGEST = 12
TOGETHER = 64


@backend(gives=("generate",), computes=True, shaped_by=("wrong",))
def words(*, folder: Path, card: dict[str, Any], how: How) -> AbstractContextManager[Backend]:
    """`fake:` and some of the prompt's own words; where the prompt has a sum such as `3 + 4`, its result; where it has
    a numbered list, one as long, with the words of a place drawn from those that stand there.

    Paper: none; it answers without understanding anything, and every answer of it says that it is fake.
    Differs: nothing.
    """
    return nullcontext(_Words(float(card["wrong"]), float(card["delay_s"])))


class _Words:
    def __init__(self, wrong: float, delay_s: float) -> None:
        self.wrong, self.delay_s = wrong, delay_s

    def arrivals(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[list[Answer]]:
        """Answers some at a time; one that takes its time comes alone."""
        for some in batched(requests, 1 if self.delay_s else TOGETHER):
            yield list(self.generate(some, sampling))

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Greedy answers depend on the prompt alone, sampled ones on the request's seed too; tokens are words."""
        for request in requests:
            prompt = " ".join(message["content"] for message in request.messages)
            said = self._words_for(prompt, request.seed if sampling.temperature else 0)
            kept = said[: sampling.max_tokens]
            text, stopped = sampling.until_stop(" ".join(kept))
            time.sleep(self.delay_s)
            yield Answer(
                request.request_id,
                text,
                "stop" if kept == said or stopped else "length",
                prompt_tokens=len(prompt.split()),
                completion_tokens=len(kept),
            )

    def _words_for(self, prompt: str, seed: int) -> list[str]:
        draw = ids.generator(seed, "fake", prompt)
        if len(shown := [task.split() for task in TASKS.findall(prompt)]) > 1:
            shortest = min(map(len, shown))
            drawn = [[shown[draw.integers(len(shown))][place] for place in range(shortest)] for _ in shown]
            return ["fake:", *(word for n, task in enumerate(drawn, 1) for word in (f"\n{n}.", *task))]
        if found := SUM.search(prompt):
            a, b = int(found[1]), int(found[3])
            result = {"+": a + b, "-": a - b, "*": a * b}[found[2]]
            return ["fake:", str(result + (int(draw.integers(1, 10)) if draw.random() < self.wrong else 0))]
        return ["fake:", *draw.choice(prompt.split() or ["nothing"], draw.integers(1, LONGEST, endpoint=True)).tolist()]

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        raise Refused("fake.words has no probabilities; it cannot read given texts. Use a local model for that.")
