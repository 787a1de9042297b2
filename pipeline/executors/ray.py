"""Parts on the nodes of a Ray cluster that is there (`docs/machines.md`)."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt

import pipeline
from pipeline.core.methods import lazy
from pipeline.core.parts import Done, Task
from pipeline.errors import Refused, TryAgain
from pipeline.executors import slot
from pipeline.kinds.executor import Executor, executor

ray: Any = lazy("ray")

Address = Annotated[str, Field(pattern=r"^(auto|[^/:]+:\d+)$")]
# How long a cluster may be silent that is asked whether it is there.
CONNECT_S = 5.0
KEPT = "The parts that are done are kept: run this again."
# Parts that are waited for at once: the first of them end first.
WATCHED = 256


@executor(processes=False)
def cluster(
    *,
    address: Address = "auto",
    cpus: NonNegativeFloat = 1.0,
    gpus: NonNegativeFloat = 0.0,
    retries: NonNegativeInt = 3,
    keep_s: Annotated[float, Field(ge=1)] = 300.0,
) -> Executor:
    """Every part wherever a node has `cpus` and `gpus` free; all nodes see the workspace under one path.

    A part whose worker or node is lost is done again, up to `retries` times. A node keeps what is heavy to import for
    `keep_s` seconds after its last part, for the next stage. The memo is opened on the host of the run alone.

    Paper: Moritz et al. 2018, Ray: A Distributed Framework for Emerging AI Applications (arXiv 1712.05889).
    Differs: nothing of the data goes through Ray: names go out, numbers of rows come back.
    """

    def work(task: Task, parts: Sequence[int]) -> Iterator[Done]:
        label = task.instance.label
        _join(address, label)
        try:
            _fits(cpus, gpus, label)
            yield from _worked(task, parts, {"num_cpus": cpus, "num_gpus": gpus}, retries, keep_s)
        except ray.exceptions.RayError as error:
            raise TryAgain(f"{label}: the Ray cluster at {address} was lost ({_said(error)}). {KEPT}") from error
        finally:
            ray.shutdown()

    return work


def _worked(task: Task, parts: Sequence[int], takes: dict[str, float], retries: int, keep_s: float) -> Iterator[Done]:
    from pipeline.executors import messenger

    label, place, lost = task.instance.label, str(Path.cwd()), Counter[int]()
    told = pickle.dumps((task, slot.sees(Path(task.data))))
    # What asks a model has the memo's calls made here.
    home = _home(place) if task.instance.params.needs() else None
    # Ray would do a lost part again by itself, and tell of it at length.
    one = ray.remote(messenger.work).options(**takes, max_retries=0)

    def begun(part: int) -> Any:
        return one.remote(part, place, task.settings.threads, keep_s, told, home)

    waiting = {begun(part): part for part in parts}
    while waiting:
        ended, _ = ray.wait(list(islice(waiting, WATCHED)), timeout=1.0)
        _tell(ray.get(home.lines.remote()) if home is not None else [])
        for reference in ended:
            part = waiting.pop(reference)
            try:
                content, said = ray.get(reference)
            except ray.exceptions.RayError as error:
                lost[part] += 1
                if lost[part] > retries:
                    raise TryAgain(
                        f"{label}: part {part} was lost {lost[part]} times: {_said(error)}. {KEPT}"
                    ) from error
                _tell([f"{label}: part {part} was lost and is made again: {_said(error)}"])
                waiting[begun(part)] = part
                continue
            _tell(said)
            # From a worker of this run, as Ray's own answer is.
            done = pickle.loads(content)
            if isinstance(done, Exception):
                raise done
            yield done
    _tell(ray.get(home.lines.remote()) if home is not None else [])


def _join(address: str, label: str) -> None:
    """Become a driver of the cluster, or say why not."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, _, port = address.rpartition(":")
    mend = f"correct run.executor.address, or write `executor: processes`. {KEPT}"
    try:
        # The package is found where it is found here, unless a node has installed it.
        job = ray.job_config.JobConfig(code_search_path=[str(Path(pipeline.__file__).parents[1])])
        if host:
            socket.create_connection((host, int(port)), CONNECT_S).close()
    except ModuleNotFoundError as error:
        raise Refused(f"{label}: run.executor names ray.cluster: `pip install 'stillhouse[ray]'` first") from error
    except OSError as error:
        raise TryAgain(
            f"{label}: no Ray cluster answers at {address} ({error}). Start one (`ray start --head`), {mend}"
        ) from error
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", job_config=job)
    except ConnectionError as error:
        raise TryAgain(
            f"{label}: the Ray cluster at {address} does not take this run in ({_said(error)}). If it has a token, set "
            f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too; else start it (`ray start --head`), {mend}"
        ) from error
    except RuntimeError as error:
        raise Refused(f"{label}: the Ray cluster at {address} cannot be joined: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(getattr(error, "cause", None) or error).split())[:400]


def _fits(cpus: float, gpus: float, label: str) -> None:
    """Refuse what no node could ever run."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise Refused(
            f"{label}: run.executor asks for {cpus:g} CPUs and {gpus:g} GPUs a part, and no node has them ({has})"
        )


def _home(place: str) -> Any:
    """Who makes the memo's calls, on this node."""
    from pipeline.executors import messenger

    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(messenger.Home).options(num_cpus=0, scheduling_strategy=here).remote(place)


def _tell(lines: Sequence[str]) -> None:
    """Say what workers have said."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
