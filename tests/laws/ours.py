"""What the suite holds to the laws: every method but a user's own, which `stillhouse methods --check` is for."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.core.methods import Method, find, shipped


def ours(kind: str) -> list[Method]:
    """The methods of a kind that ship with the repository."""
    return [find(kind, name) for name in shipped(kind)]


def held(kind: str) -> list[Any]:
    """Every law of a kind with every case that it applies to: found, so that a method enters by existing."""
    laws = importlib.import_module(f"pipeline.laws.{kind}")
    cases = [case for method in ours(kind) for case in laws.cases(method)]
    return [(law, case) for law, applies in laws.LAWS.items() for case in cases if applies(case)]


def named(thing: Any) -> str:
    """The id of a law or a case."""
    return getattr(thing, "__name__", None) or str(thing)
