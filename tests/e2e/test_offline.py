"""The default run asks nobody: it runs where there is no network, and tries for none."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e
TRY = "import socket; socket.socket().connect_ex(('192.0.2.1', 443))"


def packets(text: str) -> int:
    """What was sent, or could not be because there is no way, from Linux's counters of a network namespace."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Ip: "))
    counted = dict(zip(names, map(int, values), strict=True))
    return counted["OutRequests"] + counted["OutNoRoutes"]


def test_the_default_run_tries_no_connection(again: tuple[Workspace, str], apart: tuple[str, ...] | None) -> None:
    if apart is None:
        pytest.skip("network namespaces are not permitted here")
    workspace, counted = again
    assert "train@kd" in workspace.lock()
    assert packets(counted) == 0


def test_the_count_would_have_seen_a_connection(finished: Workspace, apart: tuple[str, ...] | None) -> None:
    if apart is None:
        pytest.skip("network namespaces are not permitted here")
    script = f'{sys.executable} -c "{TRY}"; cat /proc/self/net/snmp'
    assert packets(finished.run(*apart, "sh", "-c", script).stdout) > 0
