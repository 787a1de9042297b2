"""How a stage is run: in this process or in several, never what it gives.

Everything here may change without changing a byte of any table. `run:` in `params.yaml` is read when a stage
starts; an instance's own section is its identity.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from pipeline.warm import die_with_parent


class Batch(BaseModel):
    """How a provider's batch files are used; `price` is what a token costs there, as a share of the usual price."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    poll_s: PositiveFloat = 30.0
    max_requests: PositiveInt = 50_000
    price: PositiveFloat = 0.5


class Vllm(BaseModel):
    """How vLLM's engine uses the machine; the names are vLLM's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    tensor_parallel_size: PositiveInt = 1
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: PositiveInt | None = None
    max_num_seqs: PositiveInt = 256
    max_num_batched_tokens: PositiveInt | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool = True


class Endpoint(BaseModel):
    """Where a served model answers, how hard to push it, and what it may cost.

    The key itself is never written, only its variable. `concurrency` is the most requests in flight. The caps count
    all that this endpoint was ever asked through this workspace's memo: tokens of prompts and answers, and US dollars.
    With `batch`, requests are sent as provider batch files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    api_key_env: str | None = None
    concurrency: PositiveInt = 16
    timeout_s: PositiveFloat = 120.0
    retries: int = Field(default=6, ge=0)
    max_tokens: PositiveInt | None = None
    max_cost: PositiveFloat | None = None
    batch: Batch | None = None


class RunSettings(BaseModel):
    """The section `run:` of `params.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    executor: Literal["inline", "processes"] = "inline"
    workers: PositiveInt = 1
    threads: PositiveInt = 1
    batch_rows: PositiveInt = 512
    checkpoint_steps: PositiveInt = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"
    vllm: Vllm = Vllm()
    endpoints: dict[str, Endpoint] = {}


class How:
    """What a stage function may know about its run: settings, the memo's place, a way to report progress.

    `code` is the fingerprint of the instance's code: work in progress is gone on with only by the code that began it.
    """

    def __init__(self, settings: RunSettings, root: Path, label: str, code: str = "") -> None:
        self.settings = settings
        self.memo = root / "data" / ".memo"
        self.checkpoints = root / "data" / ".checkpoints"
        self.label = label
        self.code = code
        self._last = time.monotonic()

    def progress(self, done: int, total: int, note: object = "") -> None:
        """Say how far the work is, at most every five seconds; only then is the note made a text."""
        if time.monotonic() - self._last >= 5 or done == total:
            self._last = time.monotonic()
            print(f"{self.label}: {done} of {total} {note}".rstrip(), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(f"{self.label}: {text}", file=sys.stderr, flush=True)


def limit_threads(threads: int) -> None:
    """Bound every numerical library's threads, before any is loaded."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(variable, str(threads))


def run_parts(work: Callable[[int], int], parts: int, settings: RunSettings, imports: Sequence[str]) -> list[int]:
    """Call `work(part)` for every part, here or in processes; returns each part's number of rows.

    Workers are forked after the heavy imports, which are so paid once.
    """
    if settings.executor == "inline" or parts == 1 or settings.workers == 1:
        return [work(part) for part in range(parts)]
    for name in imports:
        importlib.import_module(name)
    global _work
    _work = work
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(settings.workers, parts), context, initializer=die_with_parent) as pool:
        return list(pool.map(_call, range(parts)))


_work: Callable[[int], int] | None = None


def _call(part: int) -> int:
    assert _work is not None
    try:
        return _work(part)
    except KeyboardInterrupt:
        # A pool would take it for this part's failure, and give this worker the next part.
        os._exit(130)
