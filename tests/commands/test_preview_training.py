"""A preview of a training says what it would learn, from which terms, and trains nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from pipeline.commands.preview_training import preview, render  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.core.stage import Instance, stage_named  # noqa: E402
from pipeline.training.loop import Pull  # noqa: E402
from pipeline.training.proof import told, warnings  # noqa: E402
from tests.training.test_fit import data, probed  # noqa: E402, F401


def shown(folder: Path, of: str, objectives: list[dict[str, Any]], **given: Any) -> str:
    """The screen of an entry of `train`."""
    said = {"of": of, "student": "base", "epochs": 1, "batch_rows": 8, "seed": 17, "objectives": objectives, **given}
    params = stage_named("train").params.model_validate(said)
    inputs = {"rows": (of,), "gates": (f"gates/{of}",), "student": ("models/base",)}
    entry = Instance("train", "kd", params, inputs, params.output("kd"), "code")
    out = Console(file=io.StringIO(), width=110, markup=False, emoji=False, highlight=False, color_system=None)
    render(preview(entry, RunSettings(device="cpu"), folder, rows=3), out, full=False)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_preview_marks_trained_tokens_and_says_how_terms_pull(data: Path) -> None:  # noqa: F811
    torch.set_num_threads(1)
    probed(data)
    text = shown(data, "signals/some/teacher", [{"use": "divergence.forward"}, {"use": "supervised.cross_entropy"}])
    assert text.count("⟦") == 3 and text.count("</s>⟧") == 3 and "add 0" in text.split("⟦")[0]
    assert "train.kd" in text and " tokens: add 100%" in text and "CAUTION" not in text
    assert "divergence.forward: loss " in text and "supervised.cross_entropy: loss " in text
    alone = shown(data, "signals/some/teacher", [{"use": "divergence.forward"}])
    assert "divergence.forward beside cross-entropy on these rows: " in alone and "it is the same" not in alone
    twice = [{"use": "supervised.cross_entropy"}] * 2
    assert "have the same gradient" in shown(data, "examples/some", twice)
    drowned = [{"use": "supervised.cross_entropy"}, {"use": "divergence.forward", "weight": 0.001}]
    assert "times as hard as divergence.forward" in shown(data, "signals/some/teacher", drowned)


def pull(term: str, norm: float, *sketch: float) -> Pull:
    return Pull(term, 1.0, norm, torch.tensor(sketch or (norm, 0.0), dtype=torch.float32))


CAUTIONS = {
    "alike and apart": ([pull("a", 1.0, 1, 0), pull("b", 1.0, 0, 1)], []),
    "99 times": ([pull("a", 99.0, 1, 0), pull("b", 1.0, 0, 1)], []),
    "101 times": ([pull("a", 1.0, 0, 1), pull("b", 101.0, 1, 0)], ["b pulls 101 times as hard as a"]),
    "one with two names": ([pull("a", 2.0), pull("b", 2.0)], ["a and b have the same gradient"]),
    "one way, twice as hard": ([pull("a", 2.0), pull("b", 1.0)], []),
    "of other models": ([pull("a", 2.0, 2), pull("b", 2.0, 2, 0)], []),
    "nothing": ([pull("a", 0.0), pull("b", 1.0)], ["a has no gradient"]),
}


@pytest.mark.parametrize("case", CAUTIONS)
def test_what_is_seldom_meant_is_said_aloud(case: str) -> None:
    turn, wanted = CAUTIONS[case]
    said = list(warnings(turn))
    assert len(said) == len(wanted) and all(w in s for w, s in zip(wanted, said, strict=True))
    assert [line for line in told({"add": 3, "mod": 1}, [turn]) if line.startswith("CAUTION")] == said


def test_domains_are_shares_of_trained_tokens() -> None:
    assert next(told({"add": 3, "mod": 1}, [[]])) == "trains on 4 tokens: add 75%, mod 25%"
