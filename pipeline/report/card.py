"""The card of an export: what is in it, how it is opened, and the licences and terms of all that it is made of.

Its head is what Hugging Face's hub and `datasets` read. It holds facts that decide nothing else and no time, place or
commit, so that the same tables have the same card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.kinds.exporter import Shape
from pipeline.report.statistics import wilson
from pipeline.tables.parquet import Scan

UNSAID = "not said"
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


@dataclass(frozen=True)
class Facts:
    """Of an entry of export: its name, what it hands over, the method, the licence that its maker gives it, and by
    entry the method, licence and terms of all that it is made of."""

    name: str
    of: str
    by: str
    use: str
    licence: str | None
    sources: Mapping[str, Mapping[str, str | None]]


def of_rows(facts: Facts, shape: Shape) -> str:
    """The card of a data set."""
    size = next((name for most, name in SIZES.items() if shape.rows < most), "n>10M")
    head = {
        "license": facts.licence or "unknown",
        "tags": ["synthetic", "distillation", "stillhouse"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": shape.files}]}],
    }
    lines = [f"{shape.rows:,} rows of `data/{facts.of}`, those of `data/{facts.by}`, written by `{facts.use}`."]
    return _text(head, facts, lines, shape)


def of_model(facts: Facts, shape: Shape, model: Path, evals: Scan) -> str:
    """The card of a model: how it did in a benchmark, with intervals, and what its own folder tells of its training."""
    head = {
        "license": facts.licence or "unknown",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "stillhouse"],
    }
    told = (model / "README.md").read_text("utf-8") if (model / "README.md").exists() else ""
    # Its headings, below those of this card.
    own = ["", *("#" + line if line.startswith("#") else line for line in told.splitlines())] if told else []
    lines = [f"`data/{facts.of}`, written by `{facts.use}`.", "", f"## In `data/{facts.by}`", "", *_judged(evals), *own]
    return _text(head, facts, lines, shape)


def _judged(evals: Scan) -> Iterator[str]:
    rows = [row for row in evals.pylist(["task", "domain", "metric", "measure"]) if row["metric"] is not None]
    yield "| task | domain | measure | items | mean | 95 % interval (Wilson) |"
    yield "|---|---|---|---|---|---|"
    measures = sorted({(row["task"], row["measure"]) for row in rows})
    for task, measure in measures:
        of = [row for row in rows if (row["task"], row["measure"]) == (task, measure)]
        for domain in ("all", *sorted({row["domain"] for row in of})):
            found = [row["metric"] for row in of if domain in ("all", row["domain"])]
            share = wilson(sum(found), len(found))
            interval = f"{share.low:.3f} to {share.high:.3f}" if set(found) <= {0, 1} else ""
            yield f"| {task} | {domain} | {measure} | {len(found):,} | {sum(found) / len(found):.3f} | {interval} |"


def _text(head: Mapping[str, Any], facts: Facts, lines: list[str], shape: Shape) -> str:
    left = [f"- {count:,}: {what}" for what, count in sorted(shape.left.items())]
    sources = [
        f"| `{entry}` | `{said['use']}` | {said['licence'] or UNSAID} | {said['terms'] or UNSAID} |"
        for entry, said in facts.sources.items()
    ]
    return "\n".join([
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {facts.name}",
        "",
        *lines,
        *(["", "## Not in it", "", *left] if left else []),
        "",
        "## How it is opened",
        "",
        shape.use,
        "",
        "## Sources, licences and terms",
        "",
        "Every entry by which something of the world's came into it. Licences are of the model or the data, terms are "
        "of a model's answers; what is not said was not written into `params.yaml`.",
        "",
        "| entry | method | licence | terms |",
        "|---|---|---|---|",
        *sources,
        "",
    ])  # fmt: skip
