"""Children: heard, shared and ended."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import psutil
import pytest

from flows.graph import Instance
from flows.process import Children, Stopped, Throttle, alive, plain, prune_locks
from tests.flows.conftest import dvc, until


def test_a_flood_of_lines_is_counted_and_its_end_is_heard() -> None:
    heard: list[str] = []
    with Throttle(heard.append, Path("log"), per_second=20) as throttle:
        for number in range(10_000):
            throttle(str(number))
    assert len(heard) < 200
    assert heard[0] == "0" and heard[-1] == "9999"
    told = sum(int(line.split()[0][1:]) for line in heard if line.startswith("("))
    assert told + sum(not line.startswith("(") for line in heard) == 10_000


def test_a_line_keeps_no_escape_code() -> None:
    assert plain("\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b1m\ttext \r\n") == "red text"


def test_stopping_ends_the_command_and_what_it_started_and_dvc_gives_its_locks_back(repository: Path) -> None:
    text = (repository / "dvc.yaml").read_text("utf-8")
    # A shell that ignores the signal, with a child of its own.
    stubborn = """cmd: "trap '' TERM; touch begun; sleep 300 & wait; sleep 300; true" """
    (repository / "dvc.yaml").write_text(text.replace("cmd: cp params.yaml out/first", stubborn), "utf-8")
    before = set(psutil.Process().children(recursive=True))
    children = Children(repository, 1, {})
    ends: list[str] = []

    def run() -> None:
        try:
            children.run(Instance("first", (), None), False, lambda line: None)
        except Stopped:
            ends.append("stopped")

    threads = [threading.Thread(target=run) for _ in range(2)]  # the second waits for the only worker
    for thread in threads:
        thread.start()
    until((repository / "begun").exists)
    below = set(psutil.Process().children(recursive=True)) - before
    assert {process.name() for process in below} >= {"sleep"}
    children.stop()
    for thread in threads:
        thread.join(60)
    assert ends == ["stopped", "stopped"]
    assert [process for process in below if alive(process)] == []
    assert json.loads((repository / ".dvc/tmp/rwlock").read_text("utf-8")) in ({}, {"read": {}, "write": {}})
    assert dvc(repository, "status").returncode == 0
    with pytest.raises(Stopped):
        children.run(Instance("first", (), None), False, lambda line: None)


def test_entries_of_dead_processes_are_dropped_and_living_ones_kept(repository: Path) -> None:
    table = repository / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir()
    arguments = psutil.Process().cmdline()[1:]
    living = {"pid": os.getpid(), "cmd": " ".join(["program", *arguments])}
    again = {"pid": os.getpid(), "cmd": "dvc repro a_number_that_came_again"}
    dead = {"pid": 2**22 - 1, "cmd": "dvc repro"}
    table.write_text(json.dumps({"write": {"/a": dead, "/b": living}, "read": {"/c": [again, living], "/d": [dead]}}))
    prune_locks(repository)
    assert json.loads(table.read_text("utf-8")) == {"write": {"/b": living}, "read": {"/c": [living]}}
