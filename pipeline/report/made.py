"""When and of what a page was made: what stands at its top."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.arms import JUDGES, Lineage, trait
from pipeline.report.facts import records


@dataclass(frozen=True)
class Made:
    """When and of what a page was made: its date (UTC), the code's commit, the commits at which the models were judged,
    and who taught, as (entry, model, the method that it comes from)."""

    date: str
    commit: str
    judged_at: tuple[str, ...]
    teachers: tuple[tuple[str, str, str], ...]
    fake: tuple[str, ...]


def made(lineage: Lineage, data: Path) -> Made:
    """What stands at the top of the page."""
    commits = [r.get("commit") for plan, r in records(lineage, data) if plan["stage"] in JUDGES]
    asked = {plan["instance"]: plan["params"]["model"] for plan in lineage.of("generate")}
    origins = {plan["instance"]: plan for plan in lineage.of("acquire")}
    teachers, fake = [], []
    for name in lineage.teachers:
        model = asked.get(name, name)
        origin = origins.get(model)
        teachers.append((name, model, "trained here" if origin is None else origin["params"]["use"]["name"]))
        if origin is not None and str(trait(origin, "origin", "backend", "")).startswith("fake."):
            fake.append(name)
    return Made(
        date=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        commit=_commit(),
        judged_at=tuple(sorted({commit[:7] for commit in commits if commit})),
        teachers=tuple(teachers),
        fake=tuple(fake),
    )


def _commit() -> str:
    """The commit of the working tree, and whether git holds all of it."""
    asked = ["git", "describe", "--always", "--abbrev=7", "--dirty= with changes that git does not hold", "--exclude=*"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
