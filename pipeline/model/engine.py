"""vLLM's engine behind four words, `add`, `step`, `abort` and `close`: here, or in a child with a Python of its own.

What vLLM needs cannot be installed beside the rest, so its child needs nothing of this package: run as a file, this is
the child. Both speak of token ids and plain values: a request is its id, its tokens or them and pictures, and the names
and values of `SamplingParams`. A child ends with its parent, however that ends: its standard input is then at an end.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

# Read by vLLM when it is imported; what the environment says already, stays. The scheduler runs in the engine's own
# process: what is batched with what is then the same in every run, and no process of its own survives a kill of it.
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
CPU_CACHE_BYTES = 2 << 30
END_S = 20.0


class Dead(Exception):
    """The engine has died."""


@dataclass(frozen=True)
class Facts:
    """What an engine says of its model: the size of its vocabulary, how many tokens it holds here, and how many the
    model itself takes."""

    vocabulary: int
    limit: int
    context: int


@dataclass(frozen=True)
class Outcome:
    """A finished request; `logprobs` are of the answer's tokens, `prompt_*` of what was read, where it is wanted."""

    id: str
    finish_reason: str
    token_ids: list[int]
    prompt_tokens: int
    logprobs: list[float] | None = None
    prompt_logprobs: list[float] | None = None
    prompt_ids: list[int] | None = None


class Engine(Protocol):
    """An engine that was started."""

    facts: Facts

    def add(self, id: str, token_ids: Sequence[int], pictures: Sequence[Any], params: dict[str, Any]) -> None:
        """Ask for one outcome; raises `ValueError` for what vLLM does not take."""
        ...

    def step(self) -> list[Outcome]:
        """Go on with all that was asked; what is finished. Raises `Dead`."""
        ...

    def abort(self, ids: Sequence[str]) -> None:
        """Take requests back."""
        ...

    def close(self) -> None:
        """End it, and all that it started."""
        ...


def start(arguments: dict[str, Any], device: str, cache: bool) -> Here:
    """Start an engine in this process with vLLM's own `arguments`; `device` is auto, cpu or cuda, and `cache` says
    whether the size of its memory is left to us."""
    prepare()
    import vllm
    from vllm.platforms import current_platform

    cpu = current_platform.is_cpu()
    if device != "auto" and (device == "cpu") != cpu:
        built = "the CPU" if cpu else "GPUs"
        raise ValueError(f"run.device is {device} and this vLLM is built for {built}: write `device: auto`")
    given = {**arguments, **(for_cpu(cache) if cpu else {})}
    return Here(vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**given)))


def prepare() -> None:
    """Set what vLLM reads when it is imported."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def for_cpu(cache: bool) -> dict[str, Any]:
    """What an engine on a CPU is started with, too."""
    # A prompt that is computed in pieces ends the engine where its request has a seed: a CPU's generator cannot be set
    # back. So every prompt must fit into one step. And nine tenths of a machine's memory are not free, as a GPU's are.
    return {"enable_chunked_prefill": False, **({"kv_cache_memory_bytes": CPU_CACHE_BYTES} if cache else {})}


class Here:
    """An engine in this process."""

    def __init__(self, engine: Any) -> None:
        import vllm
        from vllm.inputs import engine as inputs
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        self._engine, self._inputs = engine, inputs
        self._params, self._form = vllm.SamplingParams, StructuredOutputsParams
        self._dead = (RuntimeError, EngineDeadError)
        # One outcome each, when it is finished, with log-probabilities in plain lists.
        self._always = {"output_kind": RequestOutputKind.FINAL_ONLY, "flat_logprobs": True, "skip_clone": True}
        config = engine.model_config
        limit = config.max_model_len
        context = getattr(config.hf_text_config, "max_position_embeddings", limit)
        self.facts = Facts(config.get_vocab_size(), limit, context)

    def add(self, id: str, token_ids: Sequence[int], pictures: Sequence[Any], params: dict[str, Any]) -> None:
        """Ask for one outcome."""
        prompt: Any = self._inputs.tokens_input(list(token_ids))
        if pictures:
            from PIL import Image

            shown = [Image.fromarray(picture) for picture in pictures]
            prompt = {"prompt_token_ids": list(token_ids), "multi_modal_data": {"image": shown}}
        given = {**params, **self._always}
        if (form := given.pop("structured", None)) is not None:
            given["structured_outputs"] = self._form(**form)
        self._engine.add_request(id, prompt, self._params(**given))

    def step(self) -> list[Outcome]:
        """Go on with all that was asked; what is finished."""
        try:
            return [_outcome(output) for output in self._engine.step() if output.finished]
        except self._dead as error:
            raise Dead(str(error)) from error

    def abort(self, ids: Sequence[str]) -> None:
        """Take requests back."""
        self._engine.abort_request(list(ids))

    def close(self) -> None:
        """End it."""
        self._engine.engine_core.shutdown(timeout=END_S)


def _outcome(output: Any) -> Outcome:
    [made] = output.outputs
    read = output.prompt_logprobs
    return Outcome(
        output.request_id,
        str(made.finish_reason),
        list(made.token_ids),
        len(output.prompt_token_ids),
        None if made.logprobs is None else list(made.logprobs.logprobs),
        None if read is None else list(read.logprobs),
        None if read is None else list(read.token_ids),
    )


class Child:
    """An engine in a child that another Python runs."""

    def __init__(self, python: str, *given: Any) -> None:
        self._process = subprocess.Popen([python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.facts = Facts(*self._call("start", *given))
        except BaseException:
            self.close()
            raise

    def add(self, id: str, token_ids: Sequence[int], pictures: Sequence[Any], params: dict[str, Any]) -> None:
        """Ask for one outcome."""
        self._call("add", id, [int(token) for token in token_ids], list(pictures), params)

    def step(self) -> list[Outcome]:
        """Go on with all that was asked; what is finished."""
        return [Outcome(*values) for values in self._call("step")]

    def abort(self, ids: Sequence[str]) -> None:
        """Take requests back."""
        self._call("abort", list(ids))

    def close(self) -> None:
        """End it, and all that it started."""
        with suppress(Dead, RuntimeError):
            self._call("close")
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, word: str, *given: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump((word, given), self._process.stdin)
            self._process.stdin.flush()
            # From a child that this process started, over a pipe that nobody else holds, as is what the child reads.
            how, value = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            raise Dead(f"its process ended with {self._process.returncode}") from error
        if how != "ok":
            raise {"ValueError": ValueError, "Dead": Dead}.get(how, RuntimeError)(value)
        return value


def serve(asked: BinaryIO, told: BinaryIO) -> None:
    """Be the child: do what is asked until there is nothing more to come."""
    engine: Any = None
    while True:
        try:
            word, given = pickle.load(asked)
        except EOFError:
            return
        try:
            value: Any = None
            if word == "start":
                engine = start(*given)
                value = tuple(engine.facts.__dict__.values())
            else:
                value = getattr(engine, word)(*given)
                if word == "step":
                    value = [tuple(outcome.__dict__.values()) for outcome in value]
            said = "ok", value
        except Exception as error:
            said = type(error).__name__, str(error)
        pickle.dump(said, told)
        told.flush()
        if word == "close":
            return


if __name__ == "__main__":
    # What vLLM prints is for people; what is told goes where nobody else writes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    serve(sys.stdin.buffer, channel)
    os._exit(0)
