"""Rounds: what every round of the section `rounds:` has brought."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from pipeline.commands.screen import show
from pipeline.core.workspace import DATA, PARAMS
from pipeline.errors import Refused
from pipeline.plan.reading import load
from pipeline.plan.rounds import ROUND, SECTION, written
from pipeline.tables.rules import query

ABOUT = "what every round of the section `rounds:` has brought"
MORE = (
    "A line a round: its student's accuracy, the gain over the student that it began as with the interval of that, "
    "distinct pairs of neighbouring tokens among a thousand that were trained on, and the cost of all answers so far. "
    "`stillhouse unroll --rounds 1` writes a round, `python -m flows.rounds` goes on until nothing is gained."
)


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `rounds`."""
    command.add_argument("training", nargs="?", help="kd for train.kd_<round>; unset, the only one")
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON, with how many are written")


def run(training: str | None, as_json: bool) -> None:
    """Tell of every round whose student has been evaluated."""
    given = load(PARAMS)
    rows, there = history(given, training), written(given)
    if as_json:
        print(json.dumps({"written": there, "rounds": rows}))
        return
    show([told(row) for row in rows] or [f"no round has been evaluated yet; {there} are written"])


def history(given: Mapping[str, Any], training: str | None) -> list[dict[str, Any]]:
    """The table of rounds: a row for each whose student has been evaluated, up to the first that was not."""
    stem, rows = _stem(given, training), list[dict[str, Any]]()
    file = DATA / "reports" / "metrics.json"
    metrics = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for number in range(1, written(given) + 1):
        if (row := _row(given, metrics, f"{stem}{number}", number)) is None:
            break
        rows.append(row)
    return rows


def told(row: Mapping[str, Any]) -> str:
    """A round in a line."""
    return (
        f"round {row['round']}: {row['model']} {row['accuracy']:.1f} %, {row['gain']:+.1f} points "
        f"({row['low']:+.1f} to {row['high']:+.1f}), diversity {row['diversity']:.1f}, "
        f"cost {row['cost_usd']:.2f} US dollars"
    )


def _stem(given: Mapping[str, Any], training: str | None) -> str:
    """What stands before the number in the name of the training that is watched."""
    if not given.get(SECTION):
        raise Refused(
            f"{PARAMS} has no section `{SECTION}:`; write the entries of one round there, with {ROUND} in their names"
        )
    names = given[SECTION].get("train") or {}
    stems = [name.removesuffix(ROUND) for name in names if name.endswith(f"_{ROUND}")]
    if training is None and len(stems) == 1:
        return stems[0]
    if f"{training}_" not in stems:
        there = ", ".join(stem.removesuffix("_") for stem in stems) or "none"
        raise Refused(f"which training is to be watched? {SECTION}.train has {there}, each named as kd_{ROUND}")
    return f"{training}_"


def _row(given: Mapping[str, Any], metrics: Mapping[str, Any], name: str, number: int) -> dict[str, Any] | None:
    """What the tables say of a round; None if its student has not been evaluated."""
    entry, evaluated = given["train"][name], given.get("evaluate") or {}
    lines = {item["model"]: line for line, item in evaluated.items()}
    if not {name, entry["student"]} <= lines.keys():
        raise Refused(f"let evaluate ask {name} and {entry['student']}, which it began as, the same pool")
    own, start = metrics.get(lines[name], {}), lines[entry["student"]]
    if f"minus_{start}" not in own:
        return None
    kind, _, folder = entry["of"].partition("/")
    pairs = f"SELECT unnest(list_zip(token_ids[:-2], token_ids[2:])) AS pair FROM {kind}"
    (found,) = query(
        DATA,
        f"WITH pairs AS ({pairs} WHERE concat_ws('/', nullif(\"of\", ''), instance) = '{folder}') "
        "SELECT (SELECT 1000 * count(DISTINCT pair) / count(*) FROM pairs) AS diversity, "
        "(SELECT coalesce(sum(cost_usd), 0) FROM responses) AS cost_usd",
    ).to_pylist()
    gain = {"gain": own[f"minus_{start}"], "low": own[f"low_minus_{start}"], "high": own[f"high_minus_{start}"]}
    points = {key: 100 * value for key, value in {"accuracy": own["accuracy"], **gain}.items()}
    return {"round": number, "model": name, **points, **found}
