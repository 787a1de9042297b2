"""Methods that are measured in turn: each a process of its own that works whenever it is told, one thread a process.

A benchmark calls `in_turn` with itself and its methods; every method's process runs the same file with `--serve NAME`,
and there `serve` with what the method does. Rounds go from one process to the next, so that what the machine does
besides falls on all of them alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers-training" / "bin" / "python"
Said = dict[str, list[dict[str, Any]]]


def serve(make: Callable[[], Callable[[], Mapping[str, Any]]]) -> None:
    """For every line that arrives, make a piece of work, do it, and say what it took and gave.

    CPU is that of the work alone, and so is the rise of memory: the first round's counts, since what one round has
    given back may serve the next.
    """
    # A peer's environment may have none.
    with contextlib.suppress(ModuleNotFoundError):
        import torch

        torch.set_num_threads(1)
    # Whatever else is printed, by whichever way, goes where nobody takes it for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        work = make()
        memory, before = Peak(), time.process_time()
        found = work()
        said = {"cpu_s": time.process_time() - before, "rise_mib": memory.rise(), **found}
        print(json.dumps(said), file=answers, flush=True)


class Peak:
    """The highest resident memory since it was made, above what there was then."""

    def __init__(self) -> None:
        # What was freed and not given back would hide as much of what comes.
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        # The kernel's own mark, so that nothing is missed between two looks.
        Path("/proc/self/clear_refs").write_text("5")
        self.before = _resident("VmRSS")

    def rise(self) -> float:
        """In MiB."""
        return _resident("VmHWM") - self.before


def _resident(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def in_turn(file: str, methods: Mapping[str, Path], arguments: Sequence[str], rounds: int, place: Path) -> Said:
    """What every method said in every round; `methods` are their interpreters, `place` is for what they print."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    servers: dict[str, subprocess.Popen[str]] = {}
    said: Said = {name: [] for name in methods}

    def line(name: str) -> str:
        pipe = servers[name].stdout
        assert pipe is not None
        return pipe.readline() or sys.exit(f"{Path(file).stem}: {name} ended with {servers[name].wait()}")

    errors = place / "stderr"
    try:
        with errors.open("w") as log:
            for name, python in methods.items():
                command = [python, file, "--serve", name, *arguments]
                servers[name] = subprocess.Popen(
                    command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
                )
                while line(name) != "ready\n":
                    pass
            for number in range(rounds):
                for name, server in servers.items():
                    print("work", file=server.stdin, flush=True)
                    said[name].append(json.loads(line(name)))
                    print(f"{number + 1} {name}: {said[name][-1]['cpu_s']:.2f} cpu s", flush=True)
    except SystemExit:
        print(errors.read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
    return said


def versions(own: str, peers: str, python: Path = PEERS) -> dict[str, str]:
    """The packages compared, those of the peers marked where they are not ours."""
    say = "import sys, importlib.metadata as m; print(*(f'{n}={m.version(n)}' for n in sys.argv[1:]))"
    found = {"python": sys.version.split()[0]}
    for interpreter, names in ((Path(sys.executable), own), (python, peers)):
        command = [interpreter, "-c", say, *names.split()]
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        for name, version in (pair.split("=", 1) for pair in listed.split()):
            if found.setdefault(name, version) != version:
                found[f"peer's {name}"] = version
    return found
