"""Reporters: the curve of a training for those who watch it in another tool, written to `data/.curves/<tool>`.

How a student is watched decides nothing of it, so reporters are asked for under `run:`. Nothing leaves this machine. A
training that is gone on with, or made again, begins its curve anew, from the first step.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.training.ranks import here

Report = Callable[[Sequence[Mapping[str, float]]], None]
PROJECT = "stillhouse"
# The most numbers that MLflow takes at once.
AT_ONCE = 1000


def missing(settings: RunSettings) -> list[str]:
    """Reporters that are asked for and not installed, in a sentence each."""
    return [
        f"run.reporters names {name}, which is not installed here: run `uv pip install -e '.[{name}]'`"
        for name in settings.reporters
        if importlib.util.find_spec(name) is None
    ]


@contextmanager
def reports(how: How) -> Iterator[Report]:
    """What is told every point of the curve of an instance, and hands it to all reporters."""
    with ExitStack() as stack:
        told = []
        for name in how.settings.reporters if here().first else ():
            folder = how.curves / name
            folder.mkdir(parents=True, exist_ok=True)
            told.append(stack.enter_context(REPORTERS[name](folder, how.label)))

        def report(points: Sequence[Mapping[str, float]]) -> None:
            for one in told:
                one(points)

        yield report


def _parted(point: Mapping[str, float]) -> tuple[int, dict[str, float]]:
    return int(point["step"]), {name: value for name, value in point.items() if name != "step"}


@contextmanager
def _tensorboard(folder: Path, label: str) -> Iterator[Report]:
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder / label, ignore_errors=True)
    with SummaryWriter(str(folder / label)) as writer:

        def report(points: Sequence[Mapping[str, float]]) -> None:
            for step, values in map(_parted, points):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)

        yield report


@contextmanager
def _wandb(folder: Path, label: str) -> Iterator[Report]:
    import wandb

    shutil.rmtree(folder / label, ignore_errors=True)
    (folder / label).mkdir()
    quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "x_disable_stats": True}
    given = wandb.Settings(**quiet, x_disable_meta=True, x_disable_machine_info=True)
    with wandb.init(project=PROJECT, name=label, dir=folder / label, mode="offline", settings=given) as run:

        def report(points: Sequence[Mapping[str, float]]) -> None:
            for step, values in map(_parted, points):
                run.log(values, step=step)

        yield report


@contextmanager
def _mlflow(folder: Path, label: str) -> Iterator[Report]:
    import mlflow

    # Two that make its tables at once would be in each other's way.
    with FileLock(folder / "lock"):
        client = mlflow.MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        found = client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else client.create_experiment(PROJECT)
    for old in client.search_runs([experiment], f"attributes.run_name = '{label}'"):
        client.delete_run(old.info.run_id)
    run = client.create_run(experiment, run_name=label).info.run_id

    def report(points: Sequence[Mapping[str, float]]) -> None:
        now = int(1000 * time.time())
        metrics = [
            mlflow.entities.Metric(name, value, now, step)
            for step, values in map(_parted, points)
            for name, value in values.items()
        ]
        for at in range(0, len(metrics), AT_ONCE):
            client.log_batch(run, metrics[at : at + AT_ONCE])

    yield report
    client.set_terminated(run)


REPORTERS: dict[str, Callable[[Path, str], AbstractContextManager[Report]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
