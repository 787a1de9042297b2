"""Ask a model, never twice: answers and readings through the memo.

Used by every stage that runs a model. What was received is kept as it arrives, so a killed stage asks only for what
was in flight.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.asking.meter import Meter
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.errors import Refused
from pipeline.kinds.backend import (
    Answer,
    Backend,
    GenerateRequest,
    Sampling,
    card_of,
    computed_here,
    engine_of,
    open_model,
)
from pipeline.memo.claims import claimed
from pipeline.memo.memo import Memo, request_keys
from pipeline.model.chat import Chat
from pipeline.tables import ids
from pipeline.tables.parquet import batched
from pipeline.tables.tensors import spelled, unspelled

WAIT_FOR_OTHERS_S = 0.5


def requests_for(prompts: pa.Table, model: Path, sampling: Sampling, k: int, seed: int) -> list[GenerateRequest]:
    """k requests per prompt to the model of a folder, each with a seed of its own derived from the run's seed, the
    prompt and the number."""
    card = card_of(model)
    traits = find("backend", card["backend"]).traits
    renders = traits.get("renders", lambda card: False)
    renderer = Chat(model / "tokenizer") if renders(card) else None
    engine, shape, requests = engine_of(card), engine_of(card, code=False), []
    for row in prompts.select(["prompt_id", "messages", "solution", "inputs", "truth"]).to_pylist():
        if row["inputs"] and not traits.get("shown"):
            names = ", ".join(array["name"] for array in row["inputs"])
            raise Refused(
                f"prompt {row['prompt_id']} is about arrays ({names}), and {model.name} is asked in words alone "
                f"({card['backend']}): ask a model that is shown them"
            )
        rendered = None if renderer is None else renderer.prompt(row["messages"], len(row["inputs"] or ()))
        # Of one that answers with the solution, another solution is another answer.
        said = row["solution"], *ids.of_arrays(row["truth"])
        decides = ids.digest("solution", engine, *said) if traits.get("solutions") else engine
        drawn = list(enumerate(ids.seeds_of(k, seed, "generate", row["prompt_id"])))
        asked = row["prompt_id"], card["model_id"], sampling, drawn
        sample_ids, keys = request_keys(*asked, shape), request_keys(*asked, decides, rendered)
        requests += [
            GenerateRequest(
                key,
                row["prompt_id"],
                row["messages"],
                sample,
                own,
                row["solution"],
                sample_id=sample_id,
                earlier_id=None if rendered is None or engine != shape else sample_id,
                prompt_tokens=None if rendered is None else len(rendered),
                inputs=row["inputs"],
                truth=row["truth"] if traits.get("solutions") else None,
            )
            for key, sample_id, (sample, own) in zip(keys, sample_ids, drawn, strict=True)
        ]
    return requests


# Hears of answers as they arrive, and of when their asking began (`time.monotonic`).
Arrived = Callable[[Sequence[Answer], float], None]


def ask(
    model: Path, requests: Sequence[GenerateRequest], sampling: Sampling, how: How, arrived: Arrived | None = None
) -> dict[str, Answer]:
    """The answer to every request, from the memo where it is there; the model is opened only if it must be.

    An answer without the form that `sampling.structured` demands is asked for again with another seed; every attempt
    is a request of its own to the memo. An answer that never has it is one with an error.
    """
    answers: dict[str, Answer] = {}
    waiting = {request.request_id: request for request in requests}
    attempt = 0
    with ExitStack() as stack:
        asker = _Asker(model, sampling, how, stack, arrived)
        while waiting:
            attempt += 1
            tried = {key: _attempt(request, attempt) for key, request in waiting.items()}
            found = asker.answers(list(tried.values()))
            for key, request in tried.items():
                answer = found[request.request_id]
                fault = _fault(answer, sampling)
                if fault is not None and attempt < _attempts(sampling):
                    continue
                if fault is not None:
                    text = f"the answer does not have the form that `structured` demands ({attempt} attempts): {fault}"
                    answer = replace(answer, content=None, finish_reason="error", error=text)
                if attempt > 1:
                    answer = replace(answer, request_id=key, attempts=attempt)
                answers[key] = answer
                del waiting[key]
    unread = 0
    for key, answer in answers.items():
        answers[key] = _finite(answer)
        unread += answers[key] is not answer
    if unread:
        how.say(
            f"{unread} of {len(answers)} answers have log-probabilities that are no numbers; these are stored as null"
        )
    again = sum(answer.attempts > 1 for answer in answers.values())
    if again:
        how.say(f"{again} of {len(answers)} answers were asked for again, to get the form that `structured` demands")
    for text in _served_by(answers.values()):
        how.say(text)
    return answers


def _served_by(answers: Collection[Answer]) -> Iterator[str]:
    """Which addresses answered, and whether it was one model that did."""
    places = Counter(answer.endpoint for answer in answers if answer.endpoint is not None)
    if places:
        yield "answered by " + ", ".join(f"{place} {count}" for place, count in places.most_common())
    builds = Counter((answer.fingerprint, answer.endpoint) for answer in answers if answer.fingerprint is not None)
    if len({build for build, _ in builds}) > 1:
        counts = ", ".join(f"{n} by {build}{f' at {at}' * bool(at)}" for (build, at), n in builds.most_common())
        apart = len({at for _, at in builds}) == len(builds) > 1
        what = "the endpoints do not serve one model" if apart else "the server changed while it answered"
        yield f"{what} (system_fingerprint): {counts}"


def known(requests: Sequence[GenerateRequest], sampling: Sampling, how: How) -> set[str]:
    """The ids of the requests that `ask` would answer from the memo alone."""
    memo, done = Memo(how.memo), set()
    waiting, attempt = {request.request_id: request for request in requests}, 0
    while waiting:
        attempt += 1
        attempts = {key: _attempt(request, attempt) for key, request in waiting.items()}
        _carry(memo, list(attempts.values()))
        tried = {request.request_id: key for key, request in attempts.items()}
        again = {}
        for keys in batched(tried):
            for found, value in memo.get(keys).items():
                key = tried[found]
                if attempt < _attempts(sampling) and _fault(_answer(value), sampling) is not None:
                    again[key] = waiting[key]
                else:
                    done.add(key)
        waiting = again
    return done


def _carry(memo: Memo, requests: Sequence[GenerateRequest]) -> None:
    """Give answers that were kept under their earlier ids the ids of now, if the prompt had as many tokens then.

    An earlier id did not say how the prompt was rendered; a renamed answer is found under it no more.
    """
    by_earlier = {request.earlier_id: request for request in requests if request.earlier_id is not None}
    for keys in batched(by_earlier):
        lengths = {key: value.get("prompt_tokens") for key, value in memo.get(keys).items()}
        same = [key for key, length in lengths.items() if length in (None, by_earlier[key].prompt_tokens)]
        if same:
            memo.rename({key: by_earlier[key].request_id for key in same})


def _finite(answer: Answer) -> Answer:
    """The answer, with null for each log-probability that is NaN or infinite; the memo gives null for them, too."""
    if answer.logprobs is None:
        return answer
    good = np.isfinite(np.array(answer.logprobs, np.float64))
    if good.all():
        return answer
    return replace(answer, logprobs=[p if fine else None for p, fine in zip(answer.logprobs, good, strict=True)])


def _attempts(sampling: Sampling) -> int:
    """How often one answer is asked for: greedy decoding would only say the same again."""
    return 1 if sampling.structured is None or sampling.temperature == 0 else sampling.structured.attempts


def _attempt(request: GenerateRequest, number: int) -> GenerateRequest:
    if number == 1:
        return request
    return replace(
        request,
        request_id=ids.digest("attempt", request.request_id, number),
        earlier_id=request.earlier_id and ids.digest("attempt", request.earlier_id, number),
        seed=ids.seed_of(request.seed, "attempt", number),
    )


def _fault(answer: Answer, sampling: Sampling) -> str | None:
    if sampling.structured is None or answer.content is None or answer.finish_reason == "content_filter":
        return None
    return sampling.structured.fault(answer.content)


class _Asker:
    """The memo in front of a model, which is opened when it is first asked."""

    def __init__(
        self, model: Path, sampling: Sampling, how: How, stack: ExitStack, arrived: Arrived | None = None
    ) -> None:
        self.model, self.sampling, self.how, self.stack, self.arrived = model, sampling, how, stack, arrived
        self.memo = Memo(how.memo)
        self.backend: Backend | None = None

    def answers(self, requests: Sequence[GenerateRequest]) -> dict[str, Answer]:
        """The answer to every request; what another process asks for meanwhile is waited for."""
        _carry(self.memo, requests)
        answers = self._known(r.request_id for r in requests)
        missing = {r.request_id: r for r in requests if r.request_id not in answers}
        self.how.say(f"{len(answers)} of {len(requests)} from memo")
        told = False
        while missing:
            with claimed(self.memo, list(missing)) as ours:
                if ours:
                    answers.update(self._ask([request for key, request in missing.items() if key in ours]))
            missing = {key: request for key, request in missing.items() if key not in ours}
            found = self._known(missing)
            if missing and not ours and not found:
                if not told:
                    self.how.say(f"another process is asking for the last {len(missing)}: waiting for its answers")
                told = True
                time.sleep(WAIT_FOR_OTHERS_S)
            answers.update(found)
            missing = {key: request for key, request in missing.items() if key not in found}
        return answers

    def _known(self, keys: Iterable[str]) -> dict[str, Answer]:
        return {key: _answer(value) for key, value in self.memo.get(keys).items()}

    def _ask(self, requests: Sequence[GenerateRequest]) -> dict[str, Answer]:
        """Answers of the model itself, kept as they arrive."""
        answers, missing = {}, {r.request_id: r for r in requests}
        if self.backend is None:
            opening = functools.partial(open_model, self.model, self.how)
            self.backend = self.stack.enter_context(self.how.once(self.model, opening))
        meter, paid = Meter(len(missing), self.how), not computed_here(card_of(self.model))
        for together in _arrivals(self.backend, requests, self.sampling):
            fresh = {}
            for answer in together:
                request = missing.pop(answer.request_id)
                answers[answer.request_id] = answer
                # A request that failed is asked again next time: only answers are kept.
                if answer.error is None:
                    fresh[answer.request_id] = _value(answer, request, self.how.label)
            # A put costs no fsync.
            if fresh:
                self.memo.put(fresh, paid)
            meter.count(together)
            if self.arrived is not None:
                self.arrived(together, meter.started)
        if missing:
            lost = next(iter(missing))
            raise RuntimeError(f"{card_of(self.model)['backend']} did not answer {len(missing)} requests: {lost}, ...")
        return answers


def _arrivals(backend: Backend, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Sequence[Answer]]:
    """Answers as they arrive, those that belong together in one list."""
    together = getattr(backend, "arrivals", None)
    if together is not None:
        return together(requests, sampling)
    return ([answer] for answer in backend.generate(requests, sampling))


def _value(answer: Answer, request: GenerateRequest, label: str) -> dict[str, Any]:
    """What the memo keeps of an answer: all of it, and whose it is."""
    whose = {"prompt_id": request.prompt_id, "sample": request.sample, "instance": label}
    return {**answer.__dict__, "outputs": spelled(answer.outputs), **whose}


def _answer(value: dict[str, Any]) -> Answer:
    found = {name: value[name] for name in Answer.__dataclass_fields__ if name in value}
    found["outputs"] = unspelled(value.get("outputs"))
    return Answer(**found)
