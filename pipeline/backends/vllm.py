"""Models run by vLLM's engine, in this process or in a child (`run: {vllm: {python: ...}}`, `model/engine.py`).

Requests go into the engine one by one and leave it as they finish (`add_request` and `step`, not `LLM.generate`, which
gives nothing before the last is done): a killed stage loses only what was in flight, and no more than two full batches
are held at once. Prompts are handed over as the token ids of our own template.

An answer may depend on what else is in its batch: vLLM's kernels add up in an order that follows the batch's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import psutil

from pipeline.core.run import How
from pipeline.core.settings import RunSettings, Vllm
from pipeline.errors import Refused, TryAgain
from pipeline.kinds.backend import (
    PLAIN,
    WITHIN,
    Answer,
    GenerateRequest,
    Reading,
    Sampling,
    Structured,
    Tokens,
    Want,
    backend,
)
from pipeline.model.chat import Chat
from pipeline.model.engine import END_S, Child, Dead, Engine, Outcome, start
from pipeline.tables.pictures import files, pixels
from pipeline.text.thinking import split_thinking

T = TypeVar("T")
FINISHES = ("stop", "length")
# Full batches that are in the engine at once: one runs, and one waits for the places that become free.
BATCHES = 2


@backend(
    gives=("form", "generate", "read", "token_logprobs", "topk_logprobs", "structured"),
    computes=True,
    renders=lambda card: True,
    shown=True,
    packages=("vllm",),
)
@contextmanager
def engine(*, folder: Path, card: dict[str, Any], how: How) -> Iterator[VllmModel]:
    """A transformers folder, run by vLLM on this machine's GPUs, or on its CPU where vLLM is built for that.

    Paper: Kwon et al. 2023 (PagedAttention).
    Differs: of `generation_config.json` only what ends an answer is read, as in `local.model`.
    """
    if how.settings.vllm.python is None and find_spec("vllm") is None:
        raise Refused(
            f"the model {folder.name} is run with vLLM (`engine: vllm`), which is not installed: `make vllm` makes an "
            f"environment of its own for it; then write `run: {{vllm: {{python: .venv-vllm-engine/bin/python}}}}`"
        )
    # Python's own helper process, which vLLM would start, outlives the engine.
    resource_tracker.ensure_running()
    before, model = _children(), None
    started: set[psutil.Process] = set()
    try:
        model = VllmModel(folder, _start(folder, card["dtype"], how.settings), how.settings.vllm)
        started = _children() - before
        yield model
    finally:
        started |= _children() - before
        if model is not None:
            model.engine.close()
        # vLLM's own end may leave a worker behind.
        for process in psutil.wait_procs(started, timeout=END_S)[1]:
            process.kill()


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@dataclass(frozen=True)
class _Job(Generic[T]):
    """What one request asks of the engine, and what is made of its outcome."""

    id: str
    token_ids: Sequence[int]
    pictures: Sequence[Any]
    params: dict[str, Any]
    finish: Callable[[Outcome], T]


class VllmModel:
    """A started engine with our tokenizer."""

    def __init__(self, folder: Path, engine: Engine, options: Vllm) -> None:
        self.chat = Chat(folder / "tokenizer")
        self.name = folder.name
        self.engine, self.dead = engine, False
        self.most = BATCHES * options.max_num_seqs
        self.vocabulary, self.limit = engine.facts.vocabulary, engine.facts.limit
        self.context = self.limit if options.max_model_len is None else engine.facts.context

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; a prompt that leaves no room for an answer is an answer with an error."""
        yield from self._run(self._jobs_of(requests, sampling))

    def _jobs_of(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[_Job[Answer] | Answer]:
        form = {} if sampling.structured is None else {"structured": _form(sampling.structured)}
        prompt_id, token_ids, shown = None, [], []
        # Samples of one prompt follow each other, so that they find its prefix cached.
        for request in sorted(requests, key=lambda r: (r.prompt_id, r.sample)):
            if request.prompt_id != prompt_id:
                prompt_id, shown = request.prompt_id, _pictures(request)
                token_ids = self.chat.prompt(request.messages, len(shown))
            length = len(token_ids)
            room = min(sampling.max_tokens, self.context - length)
            if error := self._no_room(length, room):
                yield Answer(request.request_id, None, "error", error=error, prompt_tokens=length)
                continue
            params = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": room,
                # At temperature 0 there is no noise, and a seed would only make vLLM keep a generator.
                "seed": request.seed % 2**63 if sampling.temperature else None,
                "stop": list(sampling.stop),
                "stop_token_ids": list(self.chat.end_ids),
                "logprobs": 0,
                # Its own text is needed to find a stop string in, and for nothing else.
                "detokenize": bool(sampling.stop),
                **form,
            }
            yield _Job(request.request_id, token_ids, shown, params, lambda output: self._answer(output, sampling))

    def _no_room(self, length: int, room: int) -> str | None:
        if room < 1:
            return f"the prompt has {length} tokens; the model's context of {self.context} leaves no room to answer"
        if length + room > self.limit:
            # Cut there, an answer would depend on how the stage is run.
            return (
                f"the prompt's {length} tokens and the {room} of its answer do not fit into run.vllm.max_model_len, "
                f"{self.limit}; the model itself takes {self.context}"
            )
        return None

    def _answer(self, made: Outcome, sampling: Sampling) -> Answer:
        if made.finish_reason not in FINISHES:
            return Answer(made.id, None, "error", error=f"vLLM ended the answer with {made.finish_reason!r}")
        token_ids = made.token_ids
        text, _ = sampling.until_stop(self.chat.decode(token_ids))
        reasoning, content = split_thinking(text)
        return Answer(
            made.id,
            content,
            made.finish_reason,
            reasoning=reasoning or None,
            token_ids=token_ids,
            logprobs=made.logprobs,
            prompt_tokens=made.prompt_tokens,
            completion_tokens=len(token_ids),
        )

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once, without the prefix cache, in which a token's log-probability is not."""
        if want.needs() & WITHIN:
            raise Refused(
                f"vLLM gives no states of a model's layers and no gradients, so {self.name} cannot be read for an "
                f"embedding, a tap or an influence: acquire the model without `engine: vllm`"
            )
        top_k = min(want.top_k, self.vocabulary)
        jobs: Iterator[_Job[Reading] | Reading] = (self._read(sequence, top_k) for sequence in sequences)
        yield from self._run(jobs)

    def _read(self, sequence: Tokens, top_k: int) -> _Job[Reading]:
        length = len(sequence.token_ids)
        if length >= self.limit:
            raise Refused(
                f"{sequence.id} has {length} tokens, and vLLM reads texts of at most {self.limit - 1} with "
                f"{self.name}: raise run.vllm.max_model_len, shorten the texts, or acquire the model without "
                f"`engine: vllm`"
            )
        params = {
            "temperature": 0.0,
            "max_tokens": 1,
            "prompt_logprobs": top_k,
            "skip_reading_prefix_cache": True,
            "detokenize": False,
        }
        read = partial(_reading, sequence=sequence, top_k=top_k)
        return _Job(sequence.id, sequence.asked()[0], (), params, read)

    def _run(self, jobs: Iterator[_Job[T] | T]) -> Iterator[T]:
        """The outcome of every job as it is there; what needs no engine passes through."""
        under_way: dict[str, _Job[T]] = {}
        try:
            while True:
                while len(under_way) < self.most and (job := next(jobs, None)) is not None:
                    if isinstance(job, _Job):
                        self._add(job)
                        under_way[job.id] = job
                    else:
                        yield job
                if not under_way:
                    return
                for output in self._step():
                    yield under_way.pop(output.id).finish(output)
        finally:
            if under_way and not self.dead:
                self.engine.abort(list(under_way))

    def _step(self) -> list[Outcome]:
        try:
            return self.engine.step()
        except Dead as error:
            raise self._died(error) from error

    def _died(self, error: Dead) -> TryAgain:
        self.dead = True
        return TryAgain(
            f"vLLM's engine of {self.name} has died ({error}); what it wrote above says why. What was answered is "
            f"kept: run the stage again"
        )

    def _add(self, job: _Job[Any]) -> None:
        try:
            self.engine.add(job.id, job.token_ids, job.pictures, job.params)
        except Dead as error:
            raise self._died(error) from error
        except ValueError as error:
            raise Refused(f"vLLM does not take what is asked of {self.name}: {error}") from error


def _pictures(request: GenerateRequest) -> list[Any]:
    """The pictures that a request is about, as vLLM takes them."""
    try:
        return [pixels(file, channels=3) for file in files(request.inputs)]
    except Refused as error:
        raise Refused(f"prompt {request.prompt_id} {error}") from error


def _start(folder: Path, dtype: str, settings: RunSettings) -> Engine:
    options = settings.vllm
    given = (
        engine_arguments(folder, dtype, options),
        settings.device,
        "gpu_memory_utilization" not in options.model_fields_set,
    )
    try:
        return start(*given) if options.python is None else Child(options.python, *given)
    except (Dead, OSError, ImportError, RuntimeError, ValueError) as error:
        raise Refused(
            f"vLLM cannot start the model {folder.name}: {error}. What it wrote above says why; `run.vllm` in "
            f"params.yaml says how much memory it takes (gpu_memory_utilization, max_model_len, max_num_seqs), and "
            f"whose Python runs it (python)"
        ) from error


def engine_arguments(folder: Path, dtype: str, options: Vllm) -> dict[str, Any]:
    """What vLLM is started with, under its own names."""
    return {
        "model": str(folder),
        "dtype": dtype,
        # Workers are processes, which end when this one does, however it ends; and they free a GPU's memory.
        "distributed_executor_backend": "mp",
        "generation_config": "vllm",
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": -1,
        "disable_log_stats": True,
        **options.model_dump(exclude_none=True, exclude={"python"}),
    }


def _form(structured: Structured) -> dict[str, Any]:
    """What vLLM calls the forms that an answer may be held to."""
    choice = None if structured.choice is None else list(structured.choice)
    return {"json": structured.json_schema, "regex": structured.regex, "choice": choice}


def _reading(output: Outcome, sequence: Tokens, top_k: int) -> Reading:
    """vLLM lists for every token but the first its own log-probability and then those of the k likeliest."""
    length = len(sequence.token_ids)
    logprobs_TK = np.array(output.prompt_logprobs).reshape(length - 1, 1 + top_k)
    at_N = np.array(sequence.positions) - 1
    target = logprobs_TK[at_N, 0].astype(np.float32)
    if not top_k:
        return Reading(sequence.id, target)
    ids_TK = np.array(output.prompt_ids, np.int32).reshape(length - 1, 1 + top_k)
    top_NK = logprobs_TK[at_N, 1:]
    # Rounding may carry the sum of probabilities above 1.
    tail = np.maximum(1.0 - np.exp(top_NK).sum(-1), 0.0)
    return Reading(sequence.id, target, ids_TK[at_N, 1:], top_NK.astype(np.float32), tail.astype(np.float32))
