"""Memo: what the memo of requests holds, and how to make it forget or learn."""

from __future__ import annotations

import argparse
import time

from pipeline.commands.screen import show, table
from pipeline.core.workspace import DATA, memo_folder
from pipeline.memo.ledger import spent_by_endpoint
from pipeline.memo.memo import Memo

ABOUT = "the memo of requests: what it holds, forget old answers, learn recorded ones"
MORE = "fill learns the answers that the tables of responses hold, for example after `dvc pull`."


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `memo`."""
    command.add_argument("action", choices=("stats", "prune", "fill"), help="stats, prune or fill")
    command.add_argument("--days", type=float, default=90, metavar="N", help="prune what is older than N days (90)")


def run(action: str, days: float) -> None:
    """Print what the memo of requests holds; forget old answers; learn the recorded ones."""
    kept = Memo(memo_folder())
    if action == "prune":
        show([f"{kept.prune(days)} answers and readings older than {days:g} days are forgotten"])
    if action == "fill":
        files = sorted((DATA / "responses").rglob("part-*.parquet"))
        show([f"{kept.fill(files)} answers learnt from {len(files)} files of responses"])
    stats = kept.stats()
    show([f"{kept.path}: {stats.answers} answers, {stats.readings} readings, {stats.bytes / 1e6:.1f} MB"])
    if stats.oldest is not None:
        show([f"put between {_when(stats.oldest)} and {_when(stats.newest)}"])
    spent = spent_by_endpoint(kept.path.parent)
    if spent:
        show(["", "asked through this memo, pruned answers included; the caps of run.endpoints count this"])
        show(table(("endpoint", "tokens", "US dollars"), ((n, s.tokens, s.cost_usd) for n, s in spent.items())))


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
