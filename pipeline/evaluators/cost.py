"""Evaluators of what an answer takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path

import psutil
from pydantic import PositiveInt
from safetensors import safe_open

from pipeline.evaluators.answers import JUDGED, marked
from pipeline.kinds.backend import GenerateRequest
from pipeline.kinds.evaluator import Evaluator, Exam, Mark, evaluator


@evaluator(measure="seconds", better="lower", needs=("generate",), finds=JUDGED)
def latency(*, repeats: PositiveInt = 3) -> Evaluator:
    """How long the greedy answer to an item takes when nothing else is asked: the median of `repeats`, after one answer
    that is not counted. A time is of the machine and of the day: it is recorded, and not repeated.

    Quantities: prompt_tokens, by which the report sorts items into lengths; tokens; parameters and bytes of the weights
    as they are stored; resident, by how much this process grew from before the model was opened, in bytes.

    Paper: Zhou et al. 2023 (Efficient Transformer Knowledge Distillation: A Performance Review, arXiv 2311.13657), cost
    beside quality.
    Differs: memory is the process's own, on a GPU without what lies there.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        process, weights = psutil.Process(), _weights(exam.model.folder)
        before = process.memory_info().rss
        with exam.model.open() as backend:
            for number, item in enumerate(exam.items):
                request = GenerateRequest(item.prompt_id, item.prompt_id, item.messages, 0, 0, item.solution)
                times = []
                for _ in range(repeats + (number == 0)):
                    started = time.perf_counter()
                    [answer] = backend.generate([request], exam.greedy)
                    times.append(time.perf_counter() - started)
                grown = max(process.memory_info().rss - before, 0)
                length = {} if answer.prompt_tokens is None else {"prompt_tokens": float(answer.prompt_tokens)}
                numbers = {**weights, **length, "resident": float(grown)}
                yield marked(item, answer, statistics.median(times[-repeats:]), numbers)

    return judge


def _weights(folder: Path) -> dict[str, float]:
    """How many parameters a model's folder holds, and in how many bytes; nothing of a model that is served."""
    files = sorted(folder.glob("*.safetensors"))
    count = 0
    for file in files:
        with safe_open(file, "numpy") as stored:
            count += sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    return {"parameters": float(count), "bytes": float(sum(f.stat().st_size for f in files))} if files else {}
