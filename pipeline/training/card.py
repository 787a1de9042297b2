"""The card of a student: what it was made from, whose answers it learnt, and on which terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.core import graph
from pipeline.training.proof import domains
from pipeline.training.recipe import StudentParams

UNSAID = "not said: write `terms:` into its entry of acquire"
# What the card tells of a recipe.
TOLD = ("epochs", "batch_rows", "optimizer", "learning_rate", "weight_decay", "seed")


def card_of_student(
    name: str,
    params: StudentParams,
    by_domain: Mapping[str, int],
    trained: str,
    curve: Sequence[Mapping[str, float]],
    data: Path,
) -> str:
    """The text of its README.md. Terms are those that the plan has when the student is trained: they decide no weight,
    so an edit of them trains nothing anew."""
    files = (file for stage in graph.TEACHING for file in sorted((data / "plan" / stage).glob("*.json")))
    told = [json.loads(file.read_text("utf-8")) for file in files]
    live = getattr(params, "teacher", None)
    models = graph.teachers_of(told, params.of) | graph.terms(told, [live] if live else [])
    lines = [
        f"# {name}",
        "",
        f"A student, trained by Stillhouse from `{params.student}`"
        + (f", whose terms are: {terms}" if (terms := graph.terms(told, [params.student])[params.student]) else ""),
        "",
        f"- rows: `data/{params.of}`, {sum(by_domain.values()):,} trained tokens ({domains(by_domain)})",
        f"- objectives: {', '.join(f'{term.weight:g} x `{term.use.name}`' for term in params.terms())}",
        f"- trained: {trained}"
        + (f", those of {', '.join(f'`{pattern}`' for pattern in params.trainable)}" if params.trainable else ""),
        f"- recipe: {', '.join(f'{key} {getattr(params, key)}' for key in TOLD)}; {len(curve)} steps",
        f"- loss: {curve[0]['loss']:.4g} at the first step, {curve[-1]['loss']:.4g} at the last",
        "",
        "## Teachers and their terms",
        "",
        *(f"- `{model}`: {terms or UNSAID}" for model, terms in models.items()),
    ]
    return "\n".join([*lines, *([] if models else ["- none that the plan knows of"])]) + "\n"
