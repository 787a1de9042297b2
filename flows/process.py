"""The children of a flow: one `dvc repro --single-item` per instance; shared, heard, and ended cleanly.

A child is ended by ending the command that DVC runs, so that DVC sees it fail and gives its locks back. Children stay
in the flow's process group, so that Ctrl-C reaches them. They are not bound to the flow by PR_SET_PDEATHSIG: that
signal comes when the *thread* that started a child ends.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT

import psutil

from flows.graph import Instance

WORKERS = "workers"
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
QUIET = {
    "PYTHONUNBUFFERED": "1",  # lines come when they are written
    "TQDM_DISABLE": "1",  # in a pipe every step of a bar is a line
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


class Stopped(Exception):
    """The run is being stopped; this instance did not run, or did not finish."""


@dataclass(frozen=True)
class Outcome:
    """How an instance ended: whether its command was started, the command's exit code, its last lines, its log."""

    ran: bool
    code: int
    seconds: float
    said: tuple[str, ...]
    log: Path


class Children:
    """The children of one run. `slots` says how many instances may use a resource at once: one, unless it says more."""

    def __init__(self, root: Path, workers: int, slots: Mapping[str, int]) -> None:
        self._root = root
        self._slots = {**slots, WORKERS: workers}
        self._used: Counter[str] = Counter()
        self._running: set[subprocess.Popen[str]] = set()
        self._change = threading.Condition()
        self.stopping = self._paused = False

    def run(self, instance: Instance, force: bool, hear: Callable[[str], None]) -> Outcome:
        """Bring one instance up to date in a child, and pass what it says on to `hear`."""
        wanted = [WORKERS] if instance.resource is None else [WORKERS, instance.resource]
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", instance.name]
        with self._holding(wanted), self._child([*command, "--force"] if force else command) as child:
            return self._listen(child, instance.name, hear)

    def pause(self, paused: bool) -> None:
        """Let no child start, or let them start again; those that run go on to their end."""
        with self._change:
            self._paused = paused
            self._change.notify_all()

    def wait(self) -> None:
        """Return once nobody holds the run."""
        with self._holding([]):
            pass

    def stop(self) -> None:
        """End all children and let none start; returns when all are gone. An interrupt here does not undo it."""
        with self._change:
            self.stopping = True
            self._change.notify_all()
            running = list(self._running)
        ending = threading.Thread(target=self._end, args=(running,), name="stop")
        ending.start()
        ending.join()

    def _end(self, running: list[subprocess.Popen[str]]) -> None:
        end(running)
        prune_locks(self._root)  # somebody who killed the whole process group reached DVC before us

    @contextmanager
    def _holding(self, wanted: list[str]) -> Iterator[None]:
        """Take all resources at once, so that nobody holds one while waiting for another."""
        with self._change:
            self._change.wait_for(
                lambda: (
                    self.stopping
                    or (not self._paused and all(self._used[name] < self._slots.get(name, 1) for name in wanted))
                )
            )
            if self.stopping:
                raise Stopped
            self._used.update(wanted)
        try:
            yield
        finally:
            with self._change:
                self._used.subtract(wanted)
                self._change.notify_all()

    @contextmanager
    def _child(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        environment = {**os.environ, **QUIET}
        # Commands in dvc.yaml say `python`, which the shell looks up; it must be this one.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
        with self._change:
            if self.stopping:
                raise Stopped
            child = subprocess.Popen(
                command, cwd=self._root, env=environment, encoding="utf-8", errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self._running.add(child)
        try:
            with child:
                yield child
        finally:
            with self._change:
                self._running.discard(child)

    def _listen(self, child: subprocess.Popen[str], name: str, hear: Callable[[str], None]) -> Outcome:
        log = self._root / "data" / ".runs" / "logs" / f"{name.replace('/', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        said: deque[str] = deque(maxlen=40)
        begun, ran, code = time.monotonic(), False, None
        assert child.stdout is not None
        with log.open("w", encoding="utf-8") as file, Throttle(hear, log.relative_to(self._root)) as throttle:
            for line in child.stdout:
                line = plain(line)
                if not line:
                    continue
                file.write(line + "\n")
                file.flush()
                throttle(line)
                # DVC names the stage before its command says a word, and the exit code after its last one.
                if line == f"Running stage '{name}':":
                    ran = True
                    said.clear()
                elif found := re.match(r"ERROR: failed to reproduce .*exited with (-?\d+)$", line):
                    code = int(found[1])
                elif not line.startswith("> "):
                    said.append(line)
        status = child.wait()
        if self.stopping and status:
            raise Stopped
        seconds = round(time.monotonic() - begun, 1)
        return Outcome(ran, status if code is None or status == 0 else code, seconds, tuple(said), log)


def end(children: list[subprocess.Popen[str]], grace_s: float = 5.0) -> None:
    """End children and all below them: first the commands that DVC runs; DVC itself only if it does not end by itself.

    A DVC without a command is saving a result; it gets three times the grace, so that hours of work are not lost.
    """
    begun = time.monotonic()
    below: set[psutil.Process] = set()
    asked: set[int] = set()
    while any(child.poll() is None for child in children) or any(alive(process) for process in below):
        waited = (time.monotonic() - begun) / grace_s
        for child in children:
            found = _below(child.pid)
            for process in found - below:
                _signal(process.terminate)
            below |= found
            if waited > 3 and child.pid not in asked:
                asked.add(child.pid)
                child.send_signal(SIGINT)
            if waited > 4:
                child.kill()
        if waited > 1:
            for process in below:
                _signal(process.kill)
        time.sleep(0.05)


def _below(pid: int) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def alive(process: psutil.Process) -> bool:
    """Whether a process still does something: one that ended stays in the table until its parent asks."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()


def plain(line: str) -> str:
    """A line without escape codes, control characters and the space at its end: what a command says is not trusted."""
    return ESCAPES.sub("", line.rstrip()).expandtabs(4)


class Throttle:
    """Forwards at most this many lines a second, and always the last ones; each costs 5 ms and 500 bytes."""

    def __init__(self, hear: Callable[[str], None], log: Path, per_second: int = 20) -> None:
        self._hear, self._log, self._per_second = hear, log, per_second
        self._second = 0
        self._passed = 0
        self._left: deque[str] = deque(maxlen=per_second)
        self._omitted = 0

    def __call__(self, line: str) -> None:
        if (second := int(time.monotonic())) != self._second:
            self._second, self._passed = second, 0
        if self._passed < self._per_second:
            self._flush(0)
            self._passed += 1
            self._hear(line[:2000])
        else:
            self._left.append(line)
            self._omitted += 1

    def __enter__(self) -> Throttle:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush(len(self._left))

    def _flush(self, keep: int) -> None:
        if self._omitted > keep:
            self._hear(f"({self._omitted - keep} lines are only in {self._log})")
        for line in list(self._left)[len(self._left) - keep :]:
            self._hear(line[:2000])
        self._left.clear()
        self._omitted = 0


def prune_locks(root: Path) -> None:
    """Drop what killed DVC processes left in DVC's table of busy paths."""
    busy = root / ".dvc" / "tmp" / "rwlock"
    if busy.exists() and '"pid"' in busy.read_text("utf-8"):
        command = [sys.executable, "-m", "pipeline", "tidy", "--locks"]
        subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=True)
