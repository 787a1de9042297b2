"""What runs in Ray's own processes: messengers between a run and its workers, which know nothing of Ray.

A Ray worker has parts made by a fork of its node's warm parent, so that heavy imports are paid once a node and not once
a stage. The fork ends with the Ray worker, and with it when the run ends. Nothing but Ray and the standard library is
imported here; what is handed on is pickled, and stays so.
"""

from __future__ import annotations

import os
import pickle
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray

from pipeline.core import warm
from pipeline.errors import Refused


class Lost(Exception):
    """A worker ended without a word: the part is to be done again."""


class Home:
    """Makes calls of the memo on the workspace's own host, and hears what workers say."""

    def __init__(self, place: str) -> None:
        os.chdir(place)
        self.said: list[str] = []

    def begin(self, part: int) -> None:
        """A part is begun, perhaps again: who worked on it before was lost, with what it had claimed."""
        from pipeline.memo import claims

        claims.let_go(part)

    def make(self, part: int, call: bytes) -> bytes:
        """A call of the memo's: what it gives, or its error."""
        from pipeline.memo import home

        # From a worker of this run; what is in the cluster may run anything there anyhow, and Ray itself sends pickles.
        return pickle.dumps(home.make(pickle.loads(call), part))

    def say(self, line: str) -> None:
        """Keep a line until it is asked for."""
        self.said.append(line)

    def lines(self) -> list[str]:
        """What was said since this was asked."""
        said, self.said = self.said, []
        return said


class Slot:
    """A fork of this node's warm parent that works on one part after another."""

    def __init__(self, place: str, threads: int, keep_s: float, told: bytes) -> None:
        where = ray.util.get_node_ip_address()
        try:
            address = warm.of_this_machine(threads, keep_s)
            ours, theirs = socket.socketpair()
            environment = {name: value for name, value in os.environ.items() if name not in warm.THREADS}
            environment |= dict.fromkeys(warm.THREADS, str(threads))
            streams = [theirs.fileno(), 2, 2]
            self.link = warm.forked(address, "pipeline.executors.slot", [], place, environment, streams)
        except OSError as error:
            raise Lost(f"no worker starts on the node {where}: {error}") from error
        theirs.close()
        self.pipe, self.told = Connection(ours.detach()), told
        self.pipe.send(where)
        self.pipe.send_bytes(told)

    def work(self, part: int, home: Any) -> tuple[bytes, list[str]]:
        """What a part came to, pickled, and what was said on the way that nobody else heard."""
        said: list[str] = []
        try:
            self.pipe.send(part)
            while True:
                what, content = self.pipe.recv()
                if what == "done":
                    return content, said
                if what == "asks":
                    self.pipe.send_bytes(ray.get(home.make.remote(part, content)))
                elif home is not None:
                    ray.get(home.say.remote(content))
                else:
                    said.append(content)
        except (EOFError, OSError) as error:
            raise Lost(f"a worker on the node {ray.util.get_node_ip_address()} was ended on part {part}") from error


_slot: Slot | None = None


def work(part: int, place: str, threads: int, keep_s: float, told: bytes, home: Any) -> tuple[bytes, list[str]]:
    """Have a part made by this process's slot."""
    global _slot
    if home is not None:
        ray.get(home.begin.remote(part))
    if not Path(place).is_dir():
        refused = Refused(
            f"the node {ray.util.get_node_ip_address()} does not see {place}: every node must have the workspace under "
            f"the same path, by a network file system"
        )
        return pickle.dumps(refused), []
    try:
        if _slot is None or _slot.told != told:
            _slot = Slot(place, threads, keep_s, told)
        return _slot.work(part, home)
    except Lost:
        _slot = None
        raise
