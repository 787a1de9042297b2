"""What a reader is: from a model's reading of an answer to the columns of its score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.core.methods import marker
from pipeline.kinds.backend import Reading

Reader = Callable[[Reading], dict[str, Any]]

reader = marker("reader")
