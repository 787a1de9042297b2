"""The flow `distill`: brings the instances of `dvc.yaml` up to date, each as a task that waits for what it needs.

    python -m flows.distill [TARGET ...] [--force]       the same by hand; a running server shows it

A task ends as *Ran*, *Nothing changed*, *Restored* (from DVC's run cache), *Gate failed*, *Cap reached*, *Failed* or
*Cancelled*; what waits for one that did not complete stays *NotReady*. DVC is the only cache: Prefect keeps no result.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from uuid import UUID

import httpx
from filelock import FileLock, Timeout
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, wait
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed, State

from flows.bars import Bars
from flows.graph import Graph, GraphError, Instance, idle
from flows.notify import notify
from flows.process import Children, Outcome, Stopped, prune_locks

GATE = 65
CAP = 76
STOPS = {"Gate failed": GATE, "Cap reached": CAP}  # what is never tried again, and the exit codes that say so
WORTH_A_RETRY = {75, 137, -9}  # an endpoint that is down; a command that was killed, most often for memory
MADE = {"Ran", "Restored"}
REPORTS_URL = "STILLHOUSE_REPORTS_URL"


class TryAgain(Exception):
    """A failure that may pass by itself: the only kind that is retried."""


class Run:
    """What the tasks of one run share."""

    def __init__(self, graph: Graph, children: Children, forced: set[str], bars: Bars) -> None:
        self.instances, self.children, self.forced, self.bars = graph.instances, children, forced, bars
        self.stale = graph.changed(graph.instances)
        self.made: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}

    def may_run(self, name: str) -> bool:
        """Whether DVC is to be asked for an instance: it changed before the run, or what it needs was made in it."""
        return name in self.forced | self.stale or not self.made.isdisjoint(self.instances[name].needs)


@task(
    name="instance", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False, retries=2,
    retry_delay_seconds=[2, 10], retry_condition_fn=lambda task, run, state: isinstance(state.data, TryAgain),
)  # fmt: skip
def bring_up_to_date(name: str, run: Run) -> State:
    """One instance: a child runs it if it changed, otherwise it is left alone."""
    try:
        run.children.wait()
        if not run.may_run(name):
            return Completed(name="Nothing changed")
        with run.bars.of(name, key("progress", name), get_run_logger().info) as bar:
            outcome = run.children.run(run.instances[name], name in run.forced, bar.hear)
    except Stopped:
        return Cancelled(message="the run was stopped")
    run.outcomes[name] = outcome
    state = judge(name, outcome)
    if state.name in MADE:
        run.made.add(name)
    return state


def judge(name: str, outcome: Outcome) -> State:
    """The state that an outcome means; raises `TryAgain` for what is worth a retry."""
    if outcome.code == 0 and outcome.ran:
        return Completed(name="Ran", message=f"{outcome.seconds} s")
    if outcome.code == 0:
        restored = any("is cached - skipping run" in line for line in outcome.said)
        return Completed(name="Restored" if restored else "Nothing changed")
    last = outcome.said[-1] if outcome.said else "it said nothing"
    if outcome.code == GATE:
        text = fenced("\n".join(outcome.said))
        create_markdown_artifact(text, key=key("gate", name), description=f"{name} let nothing pass")
        return Failed(name="Gate failed", message=last)
    text = f"exit code {outcome.code}: {last} (the whole log: {outcome.log})"
    if outcome.code in WORTH_A_RETRY:
        raise TryAgain(text)
    return Failed(name="Cap reached", message=last) if outcome.code == CAP else Failed(message=text)


@flow(name="distill", persist_result=False)
def distill(
    targets: list[str] | None = None,
    force: bool = False,
    workers: int | None = None,
    slots: dict[str, int] | None = None,
    checks: bool = False,
) -> State:
    """Bring instances of dvc.yaml up to date, with all that they need.

    Args:
        targets: Instances (`train@kd`) or stages (`train`: all of its instances). Empty: everything.
        force: Run the targets even if nothing changed. What they need runs only if it changed.
        workers: How many instances may run side by side. Empty: one per processor.
        slots: How many instances may use a resource of `meta: {resource: ...}` at once, as in {"model": 2}. Empty: one.
        checks: Run what says `meta: {checks: true}` and nothing that it needs: a look at the tables that are there.
    """
    root = Path.cwd()
    lock = FileLock(root / "data" / ".runs" / "locks" / "flow.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        # The runs of `flows.serve` share its terminal.
        shown = deployment.id is None and sys.stderr.isatty()
        with lock.acquire(timeout=0), Graph() as graph, Bars(shown) as bars:
            prune_locks(root)
            chosen = graph.named(targets or [])
            children = Children(root, workers or os.cpu_count() or 1, slots or {})
            run = Run(graph, children, chosen if force else set(), bars)
            instances = graph.with_upstream(chosen)
            return run_all(run, [i for i in instances if i.checks] if checks else instances)
    except Timeout:
        return Failed(message=f"another run is under way here ({lock.lock_file} is held); wait for it or cancel it")
    except GraphError as error:
        return Failed(message=str(error))


def run_all(run: Run, instances: list[Instance]) -> State:
    """Submit one task per instance, wait for all, and sum up."""
    futures: dict[str, PrefectFuture[State]] = {}
    with obeying(run.children.stop, run.children.pause):
        try:
            for instance in instances:
                upstream = [futures[name] for name in instance.needs if name in futures]
                futures[instance.name] = bring_up_to_date.submit(
                    instance.name, run, wait_for=upstream, return_state=False
                )
            wait(list(futures.values()))
        except KeyboardInterrupt:
            run.children.stop()
            wait(list(futures.values()))
        except BaseException:  # Prefect's signal that this process must end
            run.children.stop()
            raise
    return sum_up(run, {name: future.state for name, future in futures.items()})


@contextmanager
def obeying(stop: Callable[[], None], pause: Callable[[bool], None], every_s: float = 2.0) -> Iterator[None]:
    """Pause what is done in this context while somebody has paused this run, and stop it when somebody cancels the run,
    or one that it is a part of. No runner does the one, nor the other for a run that was started by hand."""
    context, over = FlowRunContext.get(), threading.Event()
    assert context is not None and context.flow_run is not None
    runs = {context.flow_run.id, UUID(flow_run.root_flow_run_id)}
    # The context holds the server's address; a thread does not inherit it.
    arguments = (obey, runs, stop, pause, over, every_s)
    watcher = threading.Thread(target=copy_context().run, args=arguments, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
    watcher.join()


def obey(
    runs: Set[UUID], stop: Callable[[], None], pause: Callable[[bool], None], over: threading.Event, every_s: float
) -> None:
    """Look at the states of runs until it is over, and do as they say."""
    with get_client(sync_client=True) as client:
        while not over.wait(every_s):
            try:
                states = [state for run in runs if (state := client.read_flow_run(run).state)]
            except httpx.HTTPError:  # a server that restarts is no reason to stop
                continue
            if any(state.is_cancelling() or state.is_cancelled() for state in states):
                stop()
                return
            pause(any(state.is_paused() for state in states))


def sum_up(run: Run, states: Mapping[str, State]) -> State:
    """The artifacts of a run, word of it, and its state."""
    seconds = {name: outcome.seconds for name, outcome in run.outcomes.items()}
    create_table_artifact(
        [
            {"instance": name, "state": state.name, "seconds": seconds.get(name), "message": cell(state)}
            for name, state in states.items()
        ],
        key="instances",
        description="every instance of this run",
    )
    if url := os.environ.get(REPORTS_URL):
        for page in sorted(Path("data/reports").glob("*.html")):
            create_link_artifact(f"{url}/{page.name}", page.name, key=key("report", page.stem))
    verdict = results() if "report" in states and states["report"].name in MADE else ""
    if verdict:
        create_markdown_artifact(fenced(verdict), key="results", description="the verdict of this run")
    state = worst(run, states)
    if verdict or state.is_failed():
        failed = [name for name, state in states.items() if state.is_failed() and name in run.outcomes]
        wrong = [f"{name}:\n" + "\n".join(run.outcomes[name].said) for name in failed]
        notify(f"{Path.cwd().name}: {state.name}", "\n\n".join([state.message or "", *wrong, verdict]).strip())
    return state


def results() -> str:
    """What `stillhouse results` says."""
    command = [sys.executable, "-m", "pipeline", "results"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout


def worst(run: Run, states: Mapping[str, State]) -> State:
    """The state of a run: the worst of its tasks."""
    by_state: dict[str | None, list[str]] = {}
    for name, state in states.items():
        by_state.setdefault(state.name, []).append(name)
    text = "; ".join(f"{state}: {', '.join(names)}" for state, names in by_state.items())
    if run.children.stopping:
        return Cancelled(message=text)
    for stopped in STOPS.keys() & by_state.keys():
        return Failed(name=stopped, message=text)
    if not all(state.is_completed() for state in states.values()):
        return Failed(message=text)
    return Completed(name="Nothing changed" if set(by_state) <= {"Nothing changed"} else "Ran", message=text)


def fenced(text: str) -> str:
    """Text that nobody vouches for, as a block that Markdown leaves alone: its fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def cell(state: State) -> str:
    """A state's message for a cell of a table, where a viewer may take Markdown or HTML for what it is."""
    return re.sub(r"[^\w\s.,:;=@%+/'()-]", "·", state.message or "")[:300]


def key(kind: str, name: str) -> str:
    """A key that Prefect takes for an artifact."""
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', name.lower())}"


def main(arguments: list[str] | None = None) -> int:
    """Run the flow here and now; the exit code is 0, 65 for a gate, 76 for a cap, 130 if cancelled, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m flows.distill", description=distill.fn.__doc__, add_help=True)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args(arguments)
    try:
        if not given.force and idle(given.targets):
            print("nothing changed")
            return 0
    except GraphError as error:
        print(error, file=sys.stderr)
        return 1
    from flows.server import running

    url = running()
    with temporary_settings({PREFECT_API_URL: url} if url else {}):
        return ended(distill(given.targets, given.force, given.workers, return_state=True))


def ended(state: State) -> int:
    """Say how a run ended; its exit code."""
    print(f"{state.name}: {state.message}")
    return 0 if state.is_completed() else 130 if state.is_cancelled() else STOPS.get(state.name or "", 1)


if __name__ == "__main__":
    sys.exit(main())
