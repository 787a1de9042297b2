"""The section `run:` of `params.yaml`: how a stage is run, never what it gives.

Everything here may change without changing a byte of any table; it is read when a stage starts, and is part of no
instance's identity.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, PositiveFloat, PositiveInt, WithJsonSchema, model_validator

from pipeline.bounded import Limits

Bytes = Annotated[ByteSize, WithJsonSchema({"type": ["string", "integer"]})]


class Batch(BaseModel):
    """How a provider's batch files are used; `price` is what a token costs there, as a share of the usual price."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    poll_s: PositiveFloat = 30.0
    max_requests: PositiveInt = 50_000
    price: PositiveFloat = 0.5


class Vllm(BaseModel):
    """How vLLM's engine uses the machine; the names are vLLM's own, but for `python`: whose Python runs the engine, in
    a child, where it is not this one (`make vllm`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    python: str | None = None
    tensor_parallel_size: PositiveInt = 1
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: PositiveInt | None = None
    max_num_seqs: PositiveInt = 256
    max_num_batched_tokens: PositiveInt | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool = True


class Endpoint(BaseModel):
    """Where a served model answers, how hard to push it, and what it may cost.

    `urls` are several addresses of one model, each asked as fast as it answers. The key itself is never written, only
    its variable. `concurrency` is the most requests in flight to one address. The caps count
    all that this endpoint was ever asked through this workspace's memo: tokens of prompts and answers, and US dollars.
    With `batch`, requests are sent as provider batch files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = ""
    urls: tuple[str, ...] = ()
    api_key_env: str | None = None
    concurrency: PositiveInt = 16
    timeout_s: PositiveFloat = 120.0
    retries: int = Field(default=6, ge=0)
    max_tokens: PositiveInt | None = None
    max_cost: PositiveFloat | None = None
    batch: Batch | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that answer for the model."""
        return self.urls or (self.url,)

    @model_validator(mode="after")
    def _one(self) -> Endpoint:
        if bool(self.url) == bool(self.urls):
            raise ValueError("takes one of url and urls")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("names an address twice in urls")
        if self.batch is not None and len(self.urls) > 1:
            raise ValueError("sends batch files to one address: take `batch` out, or all but one of urls")
        return self


class RunSettings(BaseModel):
    """The section `run:` of `params.yaml`.

    `query_s` and `query_memory` (a text such as `8GB`, or bytes) are what one text of SQL may take: of `query`, of a
    rule such as `where`, of a rule that `plan` checks. `reporters` are tools that a training writes its curve for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    executor: Literal["inline", "processes"] = "inline"
    workers: int = Field(default=1, ge=1, le=1024)
    threads: int = Field(default=1, ge=1, le=1024)
    batch_rows: PositiveInt = 512
    checkpoint_steps: PositiveInt = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reporters: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    query_s: PositiveFloat = Field(default=300.0, allow_inf_nan=False)
    query_memory: Bytes = Field(default=ByteSize(5_000_000_000), ge=200_000_000)
    vllm: Vllm = Vllm()
    endpoints: dict[str, Endpoint] = {}

    @property
    def query(self) -> Limits:
        """What one text of SQL may take."""
        return Limits(self.query_s, int(self.query_memory))


def limit_threads(threads: int) -> None:
    """Bound every numerical library's threads, before any is loaded."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(variable, str(threads))
