"""What all tests share.

What needs vLLM runs only where `-m vllm` asks for it, as `make vllm-cpu` does, and fails where vLLM is missing.
"""

from __future__ import annotations

import signal

import pytest

# A shell's background jobs ignore SIGINT and hand that on, also to the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `-m vllm` these tests are deselected: they count neither as passed nor as skipped."""
    theirs = [item for item in items if item.get_closest_marker("vllm")]
    if "vllm" in config.option.markexpr:
        for item in theirs:
            # vLLM's own deprecations, and torch's.
            item.add_marker(pytest.mark.filterwarnings("default"))
    elif theirs:
        config.hook.pytest_deselected(items=theirs)
        items[:] = [item for item in items if item not in set(theirs)]
