"""A small repository with every shape of a graph, and a served flow over it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.process import alive

ROOT = Path(__file__).parents[2]
DVC_YAML = """
stages:
  first:
    cmd: cp params.yaml out/first
    params: [{params.yaml: }]
    outs: [out/first]
  left:         # left and right end only if they run side by side
    cmd: touch left.here; until test -e right.here; do sleep 0.05; done; cp out/first out/left
    deps: [out/first]
    outs: [out/left]
  right:
    cmd: touch right.here; until test -e left.here; do sleep 0.05; done; cp out/first out/right
    deps: [out/first]
    outs: [out/right]
  model:        # two that would fail if they ran at once
    foreach: ${model}
    do:
      cmd: mkdir busy && sleep 0.3 && rmdir busy && mkdir -p out/model && echo ${item.size} > out/model/${key}
      meta: {resource: model}
      deps: [out/first]
      outs: ["out/model/${key}"]
  flaky:        # an endpoint that is down once
    cmd: test -e once || { touch once; exit 75; }; cp out/left out/flaky
    deps: [out/left]
    outs: [out/flaky]
  check:
    cmd: cat verdict; grep -q good verdict || exit $(grep -q cap verdict && echo 76 || echo 65); cp out/left out/check
    meta: {checks: true}
    deps: [out/left, verdict]
    outs: [out/check]
  slow:
    cmd: sleep $(cat pause); cp out/right out/slow
    deps: [out/right, pause]
    outs: [out/slow]
  after:
    cmd: cp out/slow out/after
    deps: [out/slow]
    outs: [out/after]
  join:
    cmd: cat out/check out/flaky out/model/* > out/join
    deps: [out/check, out/flaky, out/model]
    outs: [out/join]
  last:
    cmd: cp out/join out/last
    deps: [out/join]
    outs: [out/last]
"""
NAMES = {"first", "left", "right", "model@a", "model@b", "flaky", "check", "slow", "after", "join", "last"}


def environment(**more: str) -> dict[str, str]:
    """The environment of a user who activated the virtual environment, without any Prefect setting."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT") and name != "PWD"}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", **more}


def dvc(repo: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run DVC in a repository and return what it said."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=repo, env=environment(), capture_output=True, text=True, check=False)


def make_repository(folder: Path) -> Path:
    """A repository of shell stages in which nothing has run."""
    folder.mkdir()
    for name, text in {
        ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n    autostage = false\n",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".gitignore": "/out\n/data\n",
        "dvc.yaml": DVC_YAML,
        "params.yaml": "model: {a: {size: 1}, b: {size: 2}}\n",
        "verdict": "good\n",
        "pause": "0\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / "out").mkdir()
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which nothing has run; the test runs in it."""
    monkeypatch.chdir(make_repository(tmp_path / "repository"))
    return Path.cwd()


def until(condition: Callable[[], object], patience_s: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class FlowRun:
    """A run as the API tells of it; `tasks` are the names and states of its tasks."""

    state: str
    type: str
    message: str
    tasks: dict[str, dict[str, object]]

    @property
    def states(self) -> dict[str, object]:
        return {name: task["state_name"] for name, task in self.tasks.items()}


class Listener(BaseHTTPRequestHandler):
    """Hears JSON that is posted to it, with the path that it came to."""

    def __init__(self, heard: list[dict[str, Any]], *given: Any) -> None:
        self.heard = heard
        super().__init__(*given)

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append({**content, "path": self.path})
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Served:
    """`python -m flows.serve` over a repository, spoken to through Prefect's API."""

    def __init__(self, repo: Path, home: Path, *arguments: str, **settings: str) -> None:
        self.repo = repo
        self.heard: list[dict[str, Any]] = []
        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), partial(Listener, self.heard))
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()
        self.ear = f"http://127.0.0.1:{self.listener.server_port}"
        # A block is named beside the address; the test that makes it hears of runs twice from then on.
        told = f"{self.ear}/own custom-webhook/ours"
        port = free_port()
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.serve", "--port", str(port), "--reports-port", "0", *arguments],
            cwd=repo,
            env=environment(
                PREFECT_HOME=str(home), PREFECT_RUNNER_POLL_FREQUENCY="1", STILLHOUSE_NOTIFY=told, **settings
            ),
            start_new_session=True,
        )  # fmt: skip
        until(self._deployed, 180)

    def _deployed(self) -> bool:
        assert self.process.poll() is None, "flows.serve ended"
        try:
            answer = self.api.get("/deployments/name/distill/distill")
        except httpx.HTTPError:
            return False
        if answer.is_success:
            self.deployment = answer.json()["id"]
        # The last that is deployed.
        return self.api.get("/deployments/name/rounds/rounds").is_success

    def post(self, path: str, body: object) -> httpx.Response:
        """Ask the API; a server whose database is busy says 503, on which Prefect's own client asks again."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answers.append(self.api.post(path, json=body))
            return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        until(answered)
        return answers[-1].raise_for_status()

    def start(self, deployment: str | None = None, **parameters: object) -> str:
        """Trigger a run as the page does; returns its id."""
        answer = self.post(f"/deployments/{deployment or self.deployment}/create_flow_run", {"parameters": parameters})
        return str(answer.json()["id"])

    def look(self, run: str) -> FlowRun:
        """What the API knows of a run."""
        state = self.api.get(f"/flow_runs/{run}").raise_for_status().json()["state"]
        tasks = self.filter("task_runs", flow_runs={"id": {"any_": [run]}})
        return FlowRun(state["name"], state["type"], state["message"] or "", {str(t["name"]): t for t in tasks})

    def ended(self, run: str) -> FlowRun:
        """The run when it has ended."""
        until(lambda: self.look(run).type in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}, 90)
        # Tasks are recorded from events, a moment after the run.
        until(lambda: not {"Pending", "Running"} & {*self.look(run).states.values()})
        return self.look(run)

    def run(self, **parameters: object) -> FlowRun:
        return self.ended(self.start(**parameters))

    def filter(self, what: str, **condition: object) -> list[dict[str, object]]:
        """Whatever of a kind meets a condition."""
        return list(self.post(f"/{what}/filter", condition).json())

    def children(self) -> list[str]:
        """The commands of DVC and of stages that are alive in the repository."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            command = " ".join(process.info["cmdline"] or [])
            if process.info["cwd"] == str(self.repo) and ("dvc" in command or "sleep" in command):
                found.append(command)
        return found

    def end(self) -> None:
        """What Ctrl-C does."""
        self.listener.shutdown()
        self.listener.server_close()
        self.api.close()
        below = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(60) == 0
            until(lambda: not any(alive(process) for process in below), 10)
        finally:
            self.process.kill()
            for process in below:
                if alive(process):
                    process.kill()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    service = Served(make_repository(folder / "repository"), folder / "home")
    try:
        yield service
    finally:
        service.end()
