"""Memo: what the memo of requests holds, and how to make it forget or learn."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

from pipeline.commands.screen import show, table
from pipeline.contracts import SIGNALS
from pipeline.core.stage import Instance
from pipeline.core.workspace import DATA, PARAMS, ROOT, memo_folder
from pipeline.kinds.backend import Reading, card_of, computed_here, engine_of
from pipeline.memo.ledger import spent_by_endpoint
from pipeline.memo.memo import MOST_DAYS, Memo, reading_key
from pipeline.tables.parquet import Scan

ABOUT = "the memo of requests: what it holds, forget old answers, learn recorded ones"
MORE = (
    "prune counts what is old; with --yes it forgets what this machine can compute again, and with --paid also what "
    "was paid for. fill learns the answers and readings that the tables hold, for example after `dvc pull`."
)
PAID = {True: "paid for", False: "can be computed again", None: "of before this was noted: may have been paid for"}


def days_of(text: str) -> float:
    """A number of days, as an argument."""
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"must be a number of days, 0 to {MOST_DAYS:,}")
    return days


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `memo`."""
    command.add_argument("action", choices=("stats", "prune", "fill"), help="stats, prune or fill")
    command.add_argument("--days", type=days_of, default=90.0, metavar="N", help="prune what is older than N days (90)")
    command.add_argument("--paid", action="store_true", help="prune also what was, or may have been, paid for")
    command.add_argument("--yes", action="store_true", help="prune it; without this it is only counted")


def run(action: str, days: float, paid: bool, yes: bool) -> None:
    """Print what the memo of requests holds; forget old answers; learn the recorded ones."""
    kept = Memo(memo_folder())
    if action == "prune":
        _prune(kept, days, paid, yes)
    if action == "fill":
        fill(kept)
    stats = kept.stats()
    show([f"{kept.path}: {stats.answers} answers, {stats.readings} readings, {stats.bytes / 1e6:.1f} MB"])
    if stats.oldest is not None:
        show([f"put between {_when(stats.oldest)} and {_when(stats.newest)}"])
    spent = spent_by_endpoint(kept.path.parent)
    if spent:
        show(["", "asked through this memo, pruned answers included; the caps of run.endpoints count this"])
        show(table(("endpoint", "tokens", "US dollars"), ((n, s.tokens, s.cost_usd) for n, s in spent.items())))


def _prune(kept: Memo, days: float, paid: bool, yes: bool) -> None:
    old = kept.older(days)
    goes = sum(o.n for o in old if paid or o.paid is False)
    show([f"older than {days:g} days:"])
    rows = ((o.n, o.what, PAID[o.paid], o.cost_usd, "stays" if o.paid is not False and not paid else "") for o in old)
    show(table(("number", "what", "", "US dollars", ""), rows) if old else ["  nothing"])
    if yes:
        show([f"{kept.prune(days, also_paid=paid)} answers and readings older than {days:g} days are forgotten", ""])
    elif goes:
        show([f"nothing is forgotten yet: add --yes to forget {goes:,} of them", ""])


def fill(kept: Memo) -> None:
    """Learn what the tables here hold."""
    files = sorted((DATA / "responses").rglob("part-*.parquet"))
    show([f"{kept.fill(files)} answers learnt from {len(files)} files of responses"])
    show(_fill_readings(kept))


def _fill_readings(kept: Memo) -> Iterator[str]:
    """Learn the readings of signals that are what this code and these models would give."""
    # Here, because counting must not wait for the plan.
    from pipeline.plan.reading import load
    from pipeline.plan.resolve import resolve
    from pipeline.plan.status import standings

    if not PARAMS.exists() or not (ROOT / "dvc.yaml").exists():
        return
    given = load(PARAMS)
    plan = resolve(given)
    clean = {s.label for s in standings(given, plan, ROOT) if s.state == "clean"}
    probes = plan.of("probe")
    # What is stored in steps is near what a model said, and not that.
    known = [p for p in probes if p.label in clean and getattr(p.params, "store", "exact") == "exact"]
    learnt = sum(_learnt(kept, probe) for probe in known)
    yield f"{learnt} readings learnt from {len(known)} of {len(probes)} tables of signals"
    for probe in probes:
        if probe not in known and probe.label in clean:
            yield f"  not from {probe.label}: it is stored compactly, which is not exact"
        elif probe not in known:
            yield f"  not from {probe.label}: `stillhouse status` says why its table may not be what it would be now"


def _learnt(kept: Memo, probe: Instance) -> int:
    from pipeline.stages.probe import Params, recorded

    assert isinstance(probe.params, Params)
    card = card_of(DATA / "models" / probe.params.model)
    want, engine, learnt = probe.params.want(), engine_of(card), 0
    scan = Scan(SIGNALS, (DATA / probe.output,))
    for part in range(scan.parts):
        found: dict[str, Reading] = {
            reading_key(tokens, card["model_id"], engine, want): reading
            for tokens, reading in recorded(scan.at(part).read())
        }
        learnt += kept.put_readings(found, paid=not computed_here(card))
    return learnt


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
