"""Harness: a model on tasks of lm-evaluation-harness, by its own code and in the shape of its results."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from pipeline.commands.screen import at_least_one, show
from pipeline.core.settings import RunSettings
from pipeline.core.workspace import DATA
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.model.load import device_of

ABOUT = "a model on tasks of lm-evaluation-harness, where that is installed"
MORE = (
    "`pip install 'stillhouse[harness]'` brings it. Its tasks fetch their data sets from the hub: set HF_HUB_OFFLINE=0 "
    "where you allow that, or give tasks of your own with --include."
)


def results(folder: Path, tasks: list[str], limit: int | None, include: Path | None) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` gives, without the samples and what is no JSON."""
    if importlib.util.find_spec("lm_eval") is None:
        raise Refused("lm-evaluation-harness is not installed: `pip install 'stillhouse[harness]'`")
    if card_of(folder).get("backend") != "local.model":
        raise Refused(f"{folder} is no language model that is run here; the harness loads a transformers folder")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    given = {"pretrained": str(folder), "dtype": card_of(folder)["dtype"]}
    manager = TaskManager(include_path=None if include is None else str(include))
    unknown = sorted(set(tasks) - set(manager.all_tasks))
    if unknown:
        raise Refused(f"the harness knows no task {', '.join(unknown)}; `lm-eval ls tasks` lists them")
    found = simple_evaluate(
        "hf",
        given,
        tasks,
        limit=limit,
        device=device_of(RunSettings()),
        task_manager=manager,
        apply_chat_template=True,
        log_samples=False,
    )
    return json.loads(json.dumps(found, default=str))


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `harness`."""
    command.add_argument("model", help="the name of an entry of acquire, build, train or distill")
    command.add_argument("tasks", nargs="+", help="names of the harness's tasks")
    command.add_argument("--limit", type=at_least_one, metavar="N", help="the first N items of each task")
    command.add_argument("--include", type=Path, metavar="DIR", help="a folder with tasks of your own")
    command.add_argument("--out", type=Path, metavar="FILE", help="where to write all of its results, as JSON")


def run(model: str, tasks: list[str], limit: int | None, include: Path | None, out: Path | None) -> None:
    """Print every metric of every task, and keep the results."""
    folder = DATA / "models" / model
    if not (folder / "model.json").exists():
        raise Refused(f"{folder} is not a model folder; `dvc repro` makes those that params.yaml names")
    found = results(folder, tasks, limit, include)
    if out is not None:
        out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for task, metrics in found["results"].items():
        told = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        show(f"{task}  {name}  {value:g}" for name, value in told.items())
