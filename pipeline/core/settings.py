"""The section `run:` of `params.yaml`: how a stage is run, never what it gives.

Everything here may change without changing what a table says: at most threads, ranks and the device round otherwise.
It is read when a stage starts, and is part of no instance's identity.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PositiveFloat,
    PositiveInt,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pipeline.bounded import HELD, Limits, machine_memory
from pipeline.core.methods import Use, available
from pipeline.core.warm import THREADS

SHORT = {"inline": "local.inline", "processes": "local.processes"}
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


class Executing(Use[Any]):
    """Who works on parts: an executor, whose type stands in a room above this one. `inline` and `processes` are short
    for the methods of this machine."""

    @classmethod
    def kind(cls) -> str:
        """The kind of the methods that may be named here."""
        return "executor"

    @model_validator(mode="before")
    @classmethod
    def _long(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("use") in SHORT:
            return {**given, "use": SHORT[given["use"]]}
        return SHORT.get(given, given) if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        names = {"enum": [*SHORT, *available(cls.kind())]}
        return {"anyOf": [names, {"type": "object", "properties": {"use": names}, "required": ["use"]}]}


class RunSettings(BaseModel):
    """The section `run:` of `params.yaml`.

    `query_s` and `query_memory` (a text such as `8GB`, or bytes) are what one text of SQL may take: of `query`, of a
    rule such as `where`, of a rule that `plan` checks. `memory`, such a text or a share of the machine's, is what
    SQL over tables holds before it puts rows on the disk. `reporters` are tools that a training writes its curve for.
    `ranks` is how many processes train a student together, each with `threads` threads or a GPU of its own; with
    `shard` the student's blocks lie over them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    executor: Executing = Field(default="inline", validate_default=True)
    workers: int = Field(default=1, ge=1, le=1024)
    threads: int = Field(default=1, ge=1, le=1024)
    batch_rows: PositiveInt = 512
    checkpoint_steps: PositiveInt = 200
    ranks: int = Field(default=1, ge=1, le=64)
    shard: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    reporters: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    query_s: PositiveFloat = Field(default=300.0, allow_inf_nan=False)
    query_memory: Bytes = Field(default=ByteSize(5_000_000_000), ge=200_000_000)
    memory: Annotated[float, Field(gt=0, le=1)] | Annotated[Bytes, Field(ge=100_000_000)] = ByteSize(HELD)
    vllm: Vllm = Vllm()
    endpoints: dict[str, Endpoint] = {}

    @property
    def query(self) -> Limits:
        """What one text of SQL may take."""
        held = self.memory if isinstance(self.memory, ByteSize) else self.memory * machine_memory()
        return Limits(self.query_s, int(self.query_memory), int(held))


def limit_threads(threads: int) -> None:
    """Bound every numerical library's threads, before any is loaded."""
    for variable in THREADS:
        os.environ.setdefault(variable, str(threads))
