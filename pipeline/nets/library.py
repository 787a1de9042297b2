"""Layers of libraries that only some need."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import Refused


def library(name: str, extra: str) -> Any:
    """A library, or a sentence that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed, and this model has its layers: pip install 'stillhouse[{extra}]'"
        raise Refused(text) from error
