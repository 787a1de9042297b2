"""Two models' answers to the same items of a benchmark, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.display import nearest
from pipeline.errors import Refused
from pipeline.viewing.tables import Tables, literal

ROWS = 20
# What is asked for -> what must hold of the two metrics, the first model's and the second's.
OUTCOMES = {
    "won": "a.metric > b.metric",
    "lost": "a.metric < b.metric",
    "both right": "a.metric = 1 AND b.metric = 1",
    "both wrong": "a.metric = 0 AND b.metric = 0",
    "all": "true",
}


@dataclass(frozen=True)
class Compared:
    """A page of items that two evaluations of one task share, and how many there are of each outcome."""

    tasks: Mapping[str, Sequence[str]]
    task: str
    first: str
    second: str
    outcome: str
    counts: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]]

    @property
    def pages(self) -> int:
        return max(1, -(-self.counts.get(self.outcome, 0) // ROWS))


def compared(tables: Tables, task: str, first: str, second: str, outcome: str, page: int) -> Compared:
    """The items of a page; what is not named is the first that there is."""
    tasks: dict[str, list[str]] = {}
    for row in tables.rows("SELECT DISTINCT task, instance FROM evals ORDER BY ALL"):
        tasks.setdefault(row["task"], []).append(row["instance"])
    task = _among(tasks, task, "benchmark", next((t for t, names in tasks.items() if len(names) > 1), ""))
    names = tasks.get(task, [])
    if len(names) < 2:
        return Compared(tasks, task, "", "", outcome, {}, [])
    first, second = _among(names, first, "evaluation", names[0]), _among(names, second, "evaluation", names[1])
    outcome = _among(OUTCOMES, outcome, "outcome", "won")
    pair = (
        f"FROM evals a JOIN evals b ON a.item_id = b.item_id AND a.task = {literal(task)} AND b.task = {literal(task)} "
        f"AND a.instance = {literal(first)} AND b.instance = {literal(second)}"
    )
    counted = ", ".join(f'count(*) FILTER ({held}) AS "{name}"' for name, held in OUTCOMES.items())
    rows = tables.rows(
        f"SELECT a.item_id, a.prompt_id, a.domain, a.target, "
        f"{', '.join(f'{side}.{c} AS {side}_{c}' for side in 'ab' for c in ('content', 'prediction', 'metric'))} "
        f"{pair} WHERE {OUTCOMES[outcome]} ORDER BY a.item_id LIMIT {ROWS} OFFSET {page * ROWS}"
    )
    prompts = ", ".join(literal(row["prompt_id"]) for row in rows) or "NULL"
    asked = tables.rows(f"SELECT prompt_id, messages FROM prompts WHERE prompt_id IN ({prompts})")
    messages = {row["prompt_id"]: row["messages"] for row in asked}
    rows = [{**row, "messages": messages.get(row["prompt_id"], [])} for row in rows]
    return Compared(tasks, task, first, second, outcome, tables.rows(f"SELECT {counted} {pair}")[0], rows)


def _among(names: Sequence[str] | Mapping[str, Any], wanted: str, what: str, otherwise: str) -> str:
    if wanted and wanted not in names:
        raise Refused(f"there is no {what} {wanted!r}{nearest(wanted, names)}; there are {', '.join(names)}")
    return wanted or otherwise
