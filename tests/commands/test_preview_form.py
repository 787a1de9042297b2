"""A preview shows what any student is trained on: as text what is one, by the names of outcomes what is none."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import chdir
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from rich.console import Console

from pipeline.commands import preview_screen, preview_training
from pipeline.commands.preview import before_preview, preview
from pipeline.core.driver import run_instance
from pipeline.core.graph import upstream
from pipeline.core.methods import shipped
from pipeline.core.settings import limit_threads
from pipeline.core.stage import Plan
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from tests.commands.pool import ROOT

ROWS = 6
# Recipe -> the student's network, an entry of `generate`, how a row is shown, and an entry of `train` on such answers.
CASES = {
    "drawings": ("language.causal", "few", r"<s>\w+ \w+ [\w ,]+<assistant>⟦[.a-z\s]+</s>⟧", None),
    "scenes": ("language.stacked", "programs", r"<s>(<image>){16}.+\?<assistant>⟦.+ = .+</s>⟧", "unverified"),
    "classifier_text": ("classifier.text", "worked", r"<cls>[abcd]+ -> ⟦[abcd]⟧", None),
    "images": ("classifier.image", "worked", r"image 12 x 12 x 1 -> ⟦[a-z]+⟧", None),
    "dense": ("dense.pixels", "worked", r"image 12 x 12 x 3 -> ⟦background \(\d+\)(, \w+ \(\d+\))+⟧", "teacher"),
    "figures": ("dense.keypoints", "worked", r"image 24 x 24 x 1, parts \d+ -> ⟦(\d\d \d\d, )+\d\d \d\d⟧", None),
    "graphs": ("graph.nodes", "worked", r"edges 2 x \d+, x 240 x 8 -> ⟦block \d \(\d+\).*⟧ \d+ unknown", None),
    "clouds": ("points.cloud", "few", r"points 128 x 3 -> ⟦\w+⟧", None),
    "scans": ("points.scene", "few", r"image 12 x 12 x 3, pixel 72, points 72 x 3 -> ⟦background \(\d+\).*⟧", None),
    "points": ("points.denoiser", "truth", r"noise 256 x 2 -> ⟦points for each⟧", "teacher"),
    "masked": ("masked.patches", "pictures", r"hidden 16, image 12 x 12 x 1 -> ⟦patch, (patch, ){14}patch⟧", None),
    "dna": ("language.masked", "lessons", r"<cls>([acgt]+) -> ⟦\1⟧", None),
}
# Networks of no recipe here: one is shown as what makes points of noise is, the other as what names a picture is.
ALSO = {"images.denoiser", "pairs.encoder"}


def test_every_network_is_shown_here() -> None:
    assert {network for network, *_ in CASES.values()} | ALSO == set(shipped("network"))


def made(plan: Plan, data: Path, *labels: str) -> None:
    """Run instances and all that they stand on, but what only judges tables."""
    above, wanted = upstream(plan), set(labels)
    order = [label for label in TopologicalSorter(above).static_order() if label in plan.instances]
    for label in reversed(order):
        if label in wanted:
            wanted |= set(above[label])
    for label in order:
        entry = plan.instances[label]
        if label not in wanted or (data / entry.output).is_dir():
            continue
        if entry.stage in ("quality", "gate"):
            (data / entry.output).mkdir(parents=True)
        else:
            run_instance(entry, plan.settings, data, data.parent)


def screen(show: Callable[[Console], None]) -> str:
    out = Console(file=io.StringIO(), width=400, markup=False, emoji=False, highlight=False, color_system=None)
    show(out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize("recipe", CASES)
def test_a_student_of_any_network_is_shown_with_what_it_is_trained_on(recipe: str, tmp_path: Path) -> None:
    _, answers, shape, training = CASES[recipe]
    limit_threads(1)
    given: dict[str, Any] = load(ROOT / "recipes" / f"{recipe}.yaml") | {"run": {"executor": "inline"}}
    given["ingest"] = {name: one | {"rows": min(one["rows"], ROWS)} for name, one in given["ingest"].items()}
    given["select"] = {
        name: {key: min(value, ROWS) if key == "budget_rows" else value for key, value in one.items()}
        for name, one in given["select"].items()
    }
    plan, data = resolve(given), tmp_path / "data"
    entry = plan.instances[f"generate@{answers}"]
    with chdir(tmp_path):
        made(plan, data, *before_preview(plan, entry, data))
        asked = preview(plan, entry, data, tmp_path, 2)
        text = screen(lambda out: preview_screen.render(asked, out, full=False))
        kept = len(re.findall(shape, text))
        assert kept and f"{kept} of 2 first answers may be trained on" in text, text
        if training is None:
            return
        trained = plan.instances[f"train@{training}"]
        made(plan, data, *upstream(plan)[trained.label])
        learnt = preview_training.preview(trained, plan.settings, data, 2)
        text = screen(lambda out: preview_training.render(learnt, out, full=False))
        assert re.search(shape, text) and "gradient" in text, text
