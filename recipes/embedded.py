"""Make the embedded teacher and base student from nothing, as `recipes/embedded.yaml` says.

    python recipes/embedded.py [teacher|base ...]

A corpus is a stream: rows may repeat, and whether a row carries its domain's misconception is drawn anew each time.
That is why this is a script over the pipeline's own parts and not a run of the graph, whose tables hold a prompt once.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml

from pipeline.contracts import EXAMPLES
from pipeline.core.methods import find
from pipeline.model.chat import Chat
from pipeline.model.folder import TOKENIZER_FILES
from pipeline.model.load import load
from pipeline.origins.fresh import gpt2
from pipeline.tables import ids
from pipeline.text.procedures import DOMAINS, Dice, solution
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.loop import Trainer, Turn
from pipeline.training.recipe import Recipe
from pipeline.training.rows import Rows
from pipeline.training.terms import Term

RECIPE = Path("recipes/embedded.yaml")
PLACE = Path("data/embedded")


def corpus(phase: dict[str, Any], held_out: float, chat: Chat) -> Iterator[dict[str, Any]]:
    """Rows of examples without end: a domain by weight, a level, a task outside the held-out groups, its solution."""
    dice = Dice(ids.seed_of(phase["seed"], "embedded"))
    names = list(phase["domains"])
    shares = np.cumsum([phase["domains"][name] for name in names])
    number = 0
    while True:
        name = names[int(np.searchsorted(shares, dice.random() * shares[-1], side="right"))]
        domain, level = DOMAINS[name], dice.below(3)
        while True:
            prompt = domain.draw(dice, level)
            fresh = ids.draw(0, "split", domain.key(prompt)) >= held_out
            if fresh and (phase["operands"] == "all" or domain.easy(prompt)):
                break
        answer = solution(name, prompt, slip=dice.random() < phase["slip"])
        rendered = chat.example([{"role": "user", "content": prompt}], answer)
        spans = [{"start": start, "end": end} for start, end in rendered.spans]
        row = {"example_id": f"{number:09d}", "prompt_id": str(number)}
        yield {**row, "token_ids": rendered.token_ids, "spans": spans, "weight": 1.0}
        number += 1


def held(rows: list[dict[str, Any]], file: Path) -> Rows:
    """Rows of examples as a training holds them."""
    names = ("example_id", "prompt_id", "token_ids", "spans", "weight")
    table = pa.Table.from_pylist(rows, pa.schema([EXAMPLES.schema.field(n) for n in names]))
    with pa.ipc.new_file(str(file), table.schema) as writer:
        writer.write_table(table, 1024)
    return Rows(file)


def make(name: str, recipe: dict[str, Any]) -> None:
    """Train one model through its phases and put it in its place."""
    model = recipe["models"][name]
    target = PLACE / name
    with tempfile.TemporaryDirectory() as scratch:
        start = Path(scratch) / "start"
        start.mkdir()
        shape = {key: model[key] for key in ("width", "layers", "heads", "seed")}
        shared = {key: recipe[key] for key in ("alphabet", "prompt_width", "context")}
        gpt2(**shape, **shared)(start)
        net, chat = load(start, "float32"), Chat(start)
        method = find("objective", "supervised.cross_entropy")
        for number, phase in enumerate(model["phases"]):
            stream = corpus(phase, recipe["held_out"], chat)
            rows = [next(stream) for _ in range(phase["steps"] * phase["batch_rows"])]
            place = Path(scratch) / f"phase{number}"
            trainer = Trainer(
                {"student": net},
                {"student": find("network", "language.causal").factory()},
                [Turn(("student",), [Term(1.0, method.factory(), frozenset(method.traits["reads"]))])],
                held(rows, Path(scratch) / f"rows{number}.arrow"),
                Recipe(
                    epochs=1,
                    batch_rows=phase["batch_rows"],
                    optimizer="muon",
                    learning_rate=1e-3,
                    warmup_steps=50,
                    decay_share=0.4,
                    seed=phase["seed"],
                ),
                "cpu",
            )
            curve = trainer.run(
                Checkpoints(place),
                10_000,
                lambda done, total, note: (
                    None if done % 100 else print(f"{name}: {done} of {total} {note}", flush=True)
                ),
            )
            print(
                f"{name}: phase {number + 1} ends at loss {curve[-1]['loss']:.4f}, {time.process_time():.0f} CPU-s",
                flush=True,
            )
        target.mkdir(parents=True, exist_ok=True)
        net.save_pretrained(target)
        (target / "model.safetensors").chmod(0o644)
        for file in TOKENIZER_FILES:
            if (start / file).exists():
                shutil.copyfile(start / file, target / file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    content = yaml.safe_load(RECIPE.read_text("utf-8"))
    for chosen in sys.argv[1:] or list(content["models"]):
        make(chosen, content)
        print(json.dumps({chosen: sum(p.numel() for p in load(PLACE / chosen, "float32").parameters())}))
