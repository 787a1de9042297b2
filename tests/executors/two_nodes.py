"""Two machines in one: a Ray cluster of two nodes, each in a network namespace of its own, joined by a cable."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.core.stage import ALONE, SECTION_OF

ROOT = Path(__file__).parents[2]
PORT = 6399
PARTS = 6
# Scorers that a test can hold up, see and end.
MINE = '''
import os, signal, time
from pathlib import Path

import pyarrow as pa

from pipeline.errors import GateFailed
from pipeline.kinds.scorer import Scorer, scorer


@scorer(reads=("content",))
def held() -> Scorer:
    """The length of an answer, once the file `heard` is there.

    Paper: none.
    Differs: nothing.
    """

    def score(rows: pa.Table) -> dict:
        own = f"{os.getpid()}-{os.getppid()}-{time.monotonic_ns()}"
        Path("told", own).touch()
        while not Path("heard").exists() and not Path("told", own + "-go").exists():
            time.sleep(0.05)
        lengths = [float(len(text or "")) for text in rows["content"].to_pylist()]
        return {"score": lengths, "quantities": [{}] * len(rows)}

    return score


@scorer(reads=("content",))
def dies() -> Scorer:
    """Ends its process.

    Paper: none.
    Differs: nothing.
    """
    return lambda rows: os.kill(os.getpid(), signal.SIGKILL)


@scorer(reads=("content",))
def stops() -> Scorer:
    """Refuses as a gate does.

    Paper: none.
    Differs: nothing.
    """

    def score(rows: pa.Table) -> dict:
        raise GateFailed("it did not pass")

    return score
'''


def may_not() -> str:
    """Why two nodes cannot be made here; nothing if they can."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install '.[ray]'"
    done = subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, text=True, check=False)
    return f"network namespaces cannot be made here: {done.stderr.strip()}" if done.returncode else ""


@dataclass
class Cluster:
    """Two nodes of one CPU, `a` with the head and `b`."""

    temporary: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = os.getpid() % 200
        self.spaces = {node: f"stillhouse-{os.getpid()}-{node}" for node in "ab"}
        self.ips = {"a": f"10.213.{number}.1", "b": f"10.213.{number}.2"}
        self.address = f"{self.ips['a']}:{PORT}"

    def environment(self) -> dict[str, str]:
        """What the nodes and the drivers have in their own environment."""
        kept = {k: v for k, v in os.environ.items() if k not in ("STILLHOUSE_WARM", "DVC_ROOT", "RAY_ADDRESS")}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return kept | own

    def cable(self) -> None:
        """Make both namespaces, and what joins them."""
        ends = {node: f"sh{os.getpid() % 10_000_000}{node}" for node in "ab"}
        for space in self.spaces.values():
            _ip("netns", "add", space)
        _ip("link", "add", ends["a"], "type", "veth", "peer", "name", ends["b"])
        for node, space in self.spaces.items():
            _ip("link", "set", ends[node], "netns", space)
            _ip("-n", space, "addr", "add", f"{self.ips[node]}/24", "dev", ends[node])
            for device in ("lo", ends[node]):
                _ip("-n", space, "link", "set", device, "up")

    def start(self, node: str) -> None:
        """Start a node, and wait until it has joined."""
        head = (
            ["--head", f"--port={PORT}", "--include-dashboard=false"] if node == "a" else [f"--address={self.address}"]
        )
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *head, f"--node-ip-address={self.ips[node]}"]
        ray += ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=80000000", "--block"]
        said = self.temporary / f"{node}.log"
        environment = self.environment() | {"RAY_TMPDIR": str(self.temporary / node)}
        inside = ["ip", "netns", "exec", self.spaces[node], *ray]
        # Ray gives a node half a minute to start, which a busy machine may not have.
        for _ in range(4):
            with said.open("wb") as log:
                self.nodes[node] = subprocess.Popen(inside, env=environment, stdout=log, stderr=log)
            deadline = time.monotonic() + 180
            while time.monotonic() < deadline and self.nodes[node].poll() is None:
                if b"Ray runtime started" in said.read_bytes():
                    return
                time.sleep(0.2)
            self.kill(node)
        raise AssertionError(said.read_text("utf-8"))

    def kill(self, node: str) -> None:
        """End every process of a node at once, as a power cut would."""
        for pid in self.pids(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.nodes[node].wait()

    def pids(self, node: str) -> list[int]:
        """The processes that run in a node's namespace."""
        done = subprocess.run(["ip", "netns", "pids", self.spaces[node]], capture_output=True, text=True, check=True)
        return [int(pid) for pid in done.stdout.split()]

    def stop(self) -> None:
        """End both nodes and take the namespaces away."""
        for node in self.nodes:
            self.kill(node)
        for space in self.spaces.values():
            _ip("netns", "del", space)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@dataclass
class Place:
    """A workspace, whose drivers run on node `a`."""

    root: Path
    cluster: Cluster

    def make(self) -> None:
        """Its parameters, and all that comes before answers."""
        (self.root / "methods" / "scorers").mkdir(parents=True)
        (self.root / "methods" / "scorers" / "mine.py").write_text(MINE, "utf-8")
        (self.root / "told").mkdir()
        score = {"of": "responses/train"}
        params: dict[str, Any] = {section: {} for section in {*SECTION_OF.values()} - {ALONE}} | {
            "seed": 3,
            "acquire": {"teacher": {"use": "fake.words"}},
            "ingest": {
                "tasks": {"pool": "train", "use": "procedural.tasks", "rows": 120, "parts": PARTS, "seed": 1},
                "bench": {"pool": "bench", "use": "procedural.tasks", "rows": 5, "parts": 1, "seed": 9},
            },
            "curate": {"train": {"against": "bench"}},
            "generate": {"teacher": {"pool": "train", "model": "teacher", "k": 2, "temperature": 1.0}},
            "score": {
                **{name: {**score, "use": f"mine.{name}"} for name in ("held", "dies", "stops")},
            },
        }
        (self.root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
        for command in ("plan", "acquire teacher", "ingest tasks", "ingest bench", "curate train"):
            self.run(*command.split())

    def executor(self, how: Any) -> None:
        """Write who works on parts; where it is the cluster, `retries` and more may be given."""
        params = yaml.safe_load((self.root / "params.yaml").read_text("utf-8"))
        ray = {"use": "ray.cluster", "address": self.cluster.address, "keep_s": 20}
        params["run"] = {"executor": {**ray, **how} if isinstance(how, dict) else how}
        (self.root / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command on node `a`."""
        inside = ["ip", "netns", "exec", self.cluster.spaces["a"], sys.executable, "-m", "pipeline", *command]
        return subprocess.Popen(
            inside, cwd=self.root, env=self.cluster.environment() | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Run a command to its end; what it said."""
        process = self.start(*command, **environment)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == code, said
        return said

    def told(self, count: int) -> dict[int, Path]:
        """The processes that are held up, once there are so many, and what they told."""
        deadline = time.monotonic() + 90
        while True:
            names = {path.name for path in (self.root / "told").iterdir()}
            waiting = [name for name in names if not name.endswith("-go") and f"{name}-go" not in names]
            living = {
                int(n.split("-")[0]): self.root / "told" / n for n in waiting if psutil.pid_exists(int(n.split("-")[0]))
            }
            if len(living) >= count:
                return living
            assert time.monotonic() < deadline, f"{living} are held up"
            time.sleep(0.1)

    def gone(self, pids: Iterable[int]) -> None:
        """Wait until these processes are no more."""
        deadline = time.monotonic() + 30
        while any(psutil.pid_exists(pid) for pid in pids):
            assert time.monotonic() < deadline, f"{pids} go on"
            time.sleep(0.1)

    def forget(self) -> None:
        """Hold up again whoever asks."""
        (self.root / "heard").unlink(missing_ok=True)
        for path in (self.root / "told").iterdir():
            path.unlink()

    def hear(self) -> None:
        """Let go whoever is held up."""
        (self.root / "heard").touch()


@contextlib.contextmanager
def two_nodes(temporary: Path) -> Iterator[Cluster]:
    """The cluster while the block runs."""
    if why := may_not():
        pytest.skip(why)
    cluster = Cluster(temporary)
    try:
        cluster.cable()
        cluster.start("a")
        cluster.start("b")
        yield cluster
    finally:
        cluster.stop()
