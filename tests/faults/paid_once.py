"""What every run would pay anew: imported once by the process that all runs are forked from."""

import aiohttp  # noqa: F401
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401

import tests.faults.conftest  # noqa: F401
from pipeline.core import identity
from pipeline.core.methods import KINDS, shipped
from pipeline.core.stage import STAGES, stage_named

for name in STAGES:
    stage_named(name)
# The syntax trees that an instance's identity is made of.
identity.fingerprint(
    ["pipeline.stages.generate"]
    + [f"pipeline.{KINDS[kind]}.{name.split('.')[0]}" for kind in ("backend", "verifier") for name in shipped(kind)]
)
