"""What a training is about to do, on a screen: rows with their trained tokens marked, how many of each domain, and how
hard each term pulls before anything is learnt."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from pipeline.commands.entries import spread
from pipeline.commands.preview_form import Form
from pipeline.commands.preview_screen import Trained, marked
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.display import printable
from pipeline.model.folder import network_of
from pipeline.tables.parquet import Scan
from pipeline.training.recipe import StudentParams, Turn

if TYPE_CHECKING:
    from pipeline.training.loop import Pull

PLAIN = "supervised.cross_entropy"


@dataclass(frozen=True)
class Preview:
    """What a preview of a training shows: rows, tokens by domain, and how the terms of each turn pull; `beside` is how
    cross-entropy on the same rows does, where that is none of them."""

    entry: str
    rows: tuple[tuple[str, Trained], ...]
    by_domain: Mapping[str, int]
    pulls: Sequence[Sequence[Pull]]
    beside: Pull | None


def preview(entry: Instance, settings: RunSettings, data: Path, rows: int) -> Preview:
    """Look at the rows and models of an entry of `train` or `distill`, and train nothing."""
    # Here, because nothing but a preview of a training needs torch.
    from pipeline.model.load import device_of
    from pipeline.training.fit import trainer_of, turn_of
    from pipeline.training.fitting import trained_tokens

    params = entry.params
    assert isinstance(params, StudentParams)
    table = params.inputs()["rows"].table
    assert table is not None
    scan = Scan(table, tuple(data / folder for folder in entry.inputs["rows"]))
    student = data / entry.inputs["student"][0]
    teacher = data / entry.inputs["teacher"][0] if "teacher" in entry.inputs else None
    by_domain = trained_tokens(scan, student, teacher, params.of)
    with tempfile.TemporaryDirectory() as folder:
        how = How(settings, Path(folder), f"preview@{entry.name}")
        device = device_of(settings)
        trainer = trainer_of(params, scan, Path(folder) / "rows.arrow", student, teacher, how, device)
        pulls = trainer.pulls()
        beside = None
        network = find("network", network_of(student / "tokenizer"))
        if all(pull.term != PLAIN for turn in pulls for pull in turn) and "target_N" in network.traits["gives"]:
            plain = turn_of(Turn.model_validate({"objectives": [{"use": PLAIN}]}), params, teacher is not None)
            beside = trainer.pull(plain, plain.terms[0])
    shown = tuple(_decoded(scan, rows, student))
    return Preview(f"{entry.stage}.{entry.name}", shown, by_domain, pulls, beside)


def _decoded(scan: Scan, rows: int, student: Path) -> Iterator[tuple[str, Trained]]:
    """The first rows by id of every domain in turn."""
    heads = scan.read(["example_id", "domain"]).sort_by("example_id")
    names = set(spread(heads, rows)["example_id"].to_pylist())
    form = Form(student / "tokenizer")
    seen: set[str] = set()
    for batch in scan.batches(["example_id", "domain", "token_ids", "spans", "inputs"]):
        for row in batch.filter(pa.array([name in names for name in batch["example_id"].to_pylist()])).to_pylist():
            if row["example_id"] not in seen:
                seen.add(row["example_id"])
                spans = [(span["start"], span["end"]) for span in row["spans"]]
                title = f"{row['domain']}  example {row['example_id'][:12]}"
                yield title, form.trained(row["token_ids"], spans, row["inputs"])


def render(shown: Preview, out: Console, full: bool) -> None:
    """The rows, then what they and the terms come to."""
    from pipeline.training.proof import told

    for title, example in shown.rows:
        out.print(Rule(Text(printable(title), "bold"), align="left", style="dim"))
        out.print(marked(example, full), soft_wrap=True)
        out.print()
    out.print(Rule(Text(printable(shown.entry), "bold"), align="left", style="dim"))
    for line in told(shown.by_domain, shown.pulls):
        out.print(Text(printable(line), "yellow" if line.startswith("CAUTION") else ""), soft_wrap=True)
    for line in _compared(shown.pulls[0], shown.beside):
        out.print(Text(printable(line)), soft_wrap=True)


def _compared(turn: Sequence[Pull], beside: Pull | None) -> Iterator[str]:
    """How terms differ from cross-entropy on the same rows."""
    for pull in turn:
        if beside is not None and beside.norm and pull.norm:
            ratio, cosine = pull.norm / beside.norm, pull.cosine(beside)
            text = f"{pull.term} beside cross-entropy on these rows: {ratio:.3g} times as hard, cosine {cosine:.3f}"
            yield f"{text}: it is the same" if cosine > 1 - 1e-6 and abs(ratio - 1) < 1e-3 else text


def run(entry: Instance, settings: RunSettings, data: Path, rows: int, out: Console, full: bool) -> None:
    """Show it."""
    render(preview(entry, settings, data, rows), out, full)
