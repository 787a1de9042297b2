"""Ask: one question to one model."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands.screen import at_least_one, show
from pipeline.core.run import How
from pipeline.core.workspace import DATA, PARAMS, memo_root
from pipeline.display import printable
from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, Backend, GenerateRequest, Sampling, open_model
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ABOUT = "one model's answer to one question"


def ask(folder: Path, text: str, how: How, max_tokens: int = 512) -> str:
    """A model's greedy answer to one question, safe to print on a terminal."""
    if not (folder / "model.json").exists():
        maker = f"`dvc repro acquire@{folder.name}` or `dvc repro train@{folder.name}`"
        raise Refused(f"{folder} is not a model folder; {maker} makes it")
    with open_model(folder, how) as backend:
        answer = one_answer(backend, text, max_tokens)
    if answer.error is not None:
        raise Refused(f"{folder.name} did not answer: {answer.error}")
    return printable(answer.content or "")


def one_answer(backend: Backend, text: str, max_tokens: int) -> Answer:
    """A backend's greedy answer to one question."""
    request = GenerateRequest("question", "question", [{"role": "user", "content": text}], sample=0, seed=0)
    [answer] = backend.generate([request], Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens))
    return answer


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `ask`."""
    command.add_argument("model", help="the name of an entry of acquire, train or distill")
    command.add_argument("question", help="what to ask")
    command.add_argument("--max-tokens", type=at_least_one, default=512, metavar="N", help="the longest answer (512)")


def run(model: str, question: str, max_tokens: int) -> None:
    """Print one model's answer to one question."""
    plan = resolve(load(PARAMS))
    models = sorted(i.name for i in plan.instances.values() if i.output == f"models/{i.name}")
    if model not in models:
        raise Refused(f"params.yaml has no model {model!r}; there are {', '.join(models)}")
    how = How(plan.settings, memo_root(), f"ask@{model}")
    show([ask(DATA / "models" / model, question, how, max_tokens)])
