"""Ask a model, never twice: requests through the memo.

Used by `generate` and `evaluate`. What was received is kept as it arrives, so a killed stage asks only for what was
in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from pipeline import ids
from pipeline.execution import How
from pipeline.memo import Memo, request_key
from pipeline.protocol import Answer, GenerateRequest, Sampling, card_of, open_model


def requests_for(prompts: pa.Table, model_id: str, sampling: Sampling, k: int, seed: int) -> list[GenerateRequest]:
    """k requests per prompt, each with a seed of its own derived from the run's seed, the prompt and the number."""
    requests = []
    for row in prompts.to_pylist():
        for sample in range(k):
            own = ids.seed_of(seed, "generate", row["prompt_id"], sample)
            key = request_key(row["messages"], model_id, sampling, sample, own)
            requests.append(GenerateRequest(key, row["prompt_id"], row["messages"], sample, own, row["solution"]))
    return requests


def ask(model: Path, requests: Sequence[GenerateRequest], sampling: Sampling, how: How) -> dict[str, Answer]:
    """The answer to every request, from the memo where it is there; the model is opened only if it must be."""
    memo = Memo(how.memo)
    found = memo.get([r.request_id for r in requests])
    answers = {key: Answer(**value) for key, value in found.items()}
    missing = [r for r in requests if r.request_id not in answers]
    how.say(f"{len(answers)} of {len(requests)} from memo")
    if missing:
        with open_model(model, how.settings) as backend:
            for number, answer in enumerate(backend.generate(missing, sampling), 1):
                answers[answer.request_id] = answer
                # A put costs no fsync. A request that failed is asked again next time: only answers are kept.
                if answer.error is None:
                    memo.put({answer.request_id: asdict(answer)})
                how.progress(number, len(missing), "answers")
    lost = [r.request_id for r in requests if r.request_id not in answers]
    if lost:
        raise RuntimeError(f"{card_of(model)['backend']} did not answer {len(lost)} requests, the first is {lost[0]}")
    return answers
