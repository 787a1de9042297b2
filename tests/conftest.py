"""What all tests share.

What carries a mark of APART runs only where `-m` names it, as `make test-long`, `make test-servers` and `make vllm-cpu`
do; what needs vLLM fails where vLLM is missing.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

APART = ("vllm", "long", "servers")
# In this order files are handed to the workers, the rest behind. The first makes the finished workspace; others that
# need it would wait for it.
FIRST = ("e2e/test_graph.py", "faults", "flows", "e2e")

# A shell's background jobs ignore SIGINT and hand that on, also to the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of APART that are not asked for are deselected: they count neither as passed nor as skipped."""
    marks = [mark for mark in APART if mark not in config.option.markexpr]
    theirs = {item for item in items if any(map(item.get_closest_marker, marks))}
    config.hook.pytest_deselected(items=list(theirs))
    items[:] = sorted((item for item in items if item not in theirs), key=_turn)
    for item in items:
        if item.get_closest_marker("vllm"):
            # vLLM's own deprecations, and torch's.
            item.add_marker(pytest.mark.filterwarnings("default"))


def _turn(item: pytest.Item) -> int:
    place = item.path.relative_to(Path(__file__).parent)
    return next((turn for turn, first in enumerate(FIRST) if place.is_relative_to(first)), len(FIRST))
