"""Estimate: the tokens, money and hours that asking will take, from a probe of a few prompts.

The probe goes through the memo, so it is never paid twice, and what the memo holds is no longer counted. Intervals come
from resampled prompts. Hours are told from the pace of the probe: for a served model with all its requests
in flight at once, for a model run here as an upper bound, because larger batches only make it faster.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from pipeline.asking.ask import ask, known
from pipeline.backends.http import endpoint_of
from pipeline.commands import sizes
from pipeline.commands.entries import asked_at_once, bring_up_to_date, needed
from pipeline.commands.screen import at_least_one, show, show_json
from pipeline.commands.works import Work, served, works
from pipeline.core.run import How
from pipeline.core.settings import Endpoint, limit_threads
from pipeline.core.stage import Instance, Plan
from pipeline.core.workspace import DATA, PARAMS, ROOT, memo_root
from pipeline.display import duration
from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, card_of, engine_of
from pipeline.memo.ledger import Ledger, Spent
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.report.statistics import LEVEL, RESAMPLES, Interval
from pipeline.tables import ids

ABOUT = "the tokens, money, hours and bytes that a run will take, with intervals, from a probe"


# The paces that probes had, kept beside the memo: a probe that asks nothing measures nothing.
PACES = "paces.json"
LEAST_ERROR = 0.2


@dataclass(frozen=True)
class Estimate:
    """What one entry will take. A quantity that cannot be told is None.

    `requests` are all of the run, `known` those that the memo answers, the probe's included; the rest is about what
    remains. `probe` of them were asked now, and `failed` of those for good.
    """

    label: str
    model: str
    prompts: int
    requests: int
    known: int
    remaining: int
    probe: int
    failed: int
    prompt_tokens: Interval | None
    completion_tokens: Interval | None
    tokens: Interval | None
    cost_usd: Interval | None
    hours: Interval | None
    pace: str


@dataclass(frozen=True)
class Cap:
    """A cap of an endpoint beside what is spent and what is to come; `at` is where it would be reached."""

    endpoint: str
    unit: Literal["max_tokens", "max_cost"]
    cap: float
    spent: float
    needed: Interval
    reached: Literal["no", "perhaps", "yes"]
    at: str | None


@dataclass(frozen=True)
class Estimates:
    """Every entry, their total and the caps."""

    entries: tuple[Estimate, ...]
    total: dict[str, Interval | None]
    caps: tuple[Cap, ...]


@dataclass(frozen=True)
class _Pace:
    """How long a number of answers took: seconds in which a request was in flight, summed, or of this process."""

    seconds: float
    answers: int
    tokens: int


class _Clock:
    """Hears of answers as they arrive: the start of an asking -> seconds after it."""

    def __init__(self) -> None:
        self.arrivals: dict[float, list[float]] = defaultdict(list)

    def __call__(self, answers: Sequence[Answer], started: float) -> None:
        self.arrivals[started] += [time.monotonic() - started] * len(answers)

    def seconds(self, in_flight: int | None) -> float:
        """How long the answers took; with requests in flight at once, the time of each, summed.

        A request begins when an earlier one ends, so all but the last arrivals cancel out.
        """
        times = self.arrivals.values()
        return sum(max(t) if in_flight is None else sum(sorted(t)[-in_flight:]) for t in times)


def chosen(plan: Plan, names: Sequence[str]) -> list[Instance]:
    """The named entries of `generate`; without names all of them, and those that judge a served model."""
    entries = {instance.name: instance for instance in plan.of("generate")}
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise Refused(f"params.yaml has no generate.{unknown[0]}; there are: {', '.join(entries) or 'none'}")
    if names:
        return [entries[name] for name in dict.fromkeys(names)]
    judges = [*plan.of("evaluate"), *plan.of("compare")]
    judged = [i for i in judges if any(f"acquire@{name}" in served(plan) for name in i.params.needs())]
    if not entries and not judged:
        raise Refused("params.yaml has no entry of generate, so no model is asked")
    return [*entries.values(), *judged]


def ready(plan: Plan, entries: Sequence[Instance], data: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Label of an entry -> what must be up to date to estimate it; and of those that wait for a training, why."""
    able, waiting = {}, {}
    for entry in entries:
        try:
            able[entry.label] = needed(plan, entry.label, data)
        except Refused as error:
            waiting[entry.label] = str(error)
    return able, waiting


def estimate(plan: Plan, entries: Sequence[Instance], data: Path, root: Path, rows: int) -> Estimates:
    """Probe every entry with one answer to each of this many prompts, and say what the rest will take; what two of
    those that judge ask alike is told of the first."""
    settings, draws, found = asked_at_once(plan.settings), [], []
    seen: set[tuple[str, str, str]] = set()
    for work in (work for entry in entries for work in works(entry, plan, data)):
        if not work.label.startswith("generate@"):
            names = {(work.model.name, str(work.sampling.content()), r.request_id): r for r in work.requests}
            work = replace(work, requests=[request for name, request in names.items() if name not in seen])
            seen |= names.keys()
        if not work.requests:
            continue
        name = work.model.name
        how = How(settings, root, f"estimate@{work.label.partition('@')[2]}")
        # Of an endpoint with batch files `settings` no longer say so; the plan does.
        endpoint = endpoint_of(name, plan.settings) if f"acquire@{name}" in served(plan) else None
        one, columns = _estimate(work, endpoint, how, rows)
        found.append(one)
        draws.append(columns)
    total = {name: _sum([columns[name] for columns in draws]) for name in ("tokens", "cost_usd", "hours")}
    return Estimates(tuple(found), total, tuple(_caps(plan, found, root)))


Draws = dict[str, tuple[float, np.ndarray] | None]


def _estimate(work: Work, endpoint: Endpoint | None, how: How, rows: int) -> tuple[Estimate, Draws]:
    """The estimate of one entry, and each quantity with its resampled values, from which sums over entries are made."""
    card = card_of(work.model)
    # Ids are hashes, so the first prompts by id are prompts by chance, and the same ones each time.
    probe = list({request.prompt_id: request for request in reversed(work.requests)}.values())[: -rows - 1 : -1]
    before = known(probe, work.sampling, how)
    clock = _Clock()
    answers = ask(work.model, probe, work.sampling, how, clock)
    good = [answer for answer in answers.values() if answer.error is None]
    if not good:
        raise Refused(
            f"{work.label}: none of the {len(probe)} requests of the probe was answered: {_commonest(answers)}"
        )
    asked = [answers[r.request_id] for r in probe if r.request_id not in before]
    in_flight = min(endpoint.concurrency, max(len(asked), 1)) if endpoint else None
    pace = _pace(work, card, asked, clock.seconds(in_flight), how)
    held = known(work.requests, work.sampling, how)
    waiting = Counter(r.prompt_id for r in work.requests if r.request_id not in held)
    remaining = waiting.total()
    # With `n` one call asks for several samples of a prompt, and pays for the prompt once.
    calls = sum(-(-count // card.get("n", 1)) for count in waiting.values())
    at_once = endpoint.concurrency * work.processes if endpoint else 1
    values = _columns(good, card, endpoint, pace, calls / max(remaining, 1), at_once)
    rng = ids.generator(0, "estimate", work.label)
    draws: Draws = {}
    for name, column in values.items():
        if remaining == 0:
            draws[name] = 0.0, np.zeros(RESAMPLES)
        else:
            draws[name] = None if column is None else _totals(column, remaining, len(waiting), rng)
    if remaining and endpoint is not None and endpoint.batch is not None:
        draws["hours"] = None
    found = Estimate(
        label=work.label,
        model=work.model.name,
        prompts=work.prompts,
        requests=len(work.requests),
        known=len(held),
        remaining=remaining,
        probe=len(asked),
        failed=len(answers) - len(good),
        pace=_pace_line(pace, endpoint, work.processes) if remaining else "nothing remains to be asked",
        **{name: None if draw is None else _interval(*draw) for name, draw in draws.items()},
    )
    return found, draws


def _commonest(answers: Mapping[str, Answer]) -> str:
    errors = [answer.error for answer in answers.values() if answer.error is not None]
    return max(set(errors), key=errors.count)


def _columns(
    answers: Sequence[Answer],
    card: Mapping[str, Any],
    endpoint: Endpoint | None,
    pace: _Pace | None,
    calls: float,
    at_once: int,
) -> dict[str, np.ndarray | None]:
    """What each answer of the probe took, its attempts included, as one answer of the run will; None if not known.

    `calls` is how many calls an answer of the run needs, `at_once` how many of them are in flight.
    """

    def column(values: Sequence[int | None]) -> np.ndarray | None:
        return None if None in values else np.array(values, np.float64)

    attempts = np.array([a.attempts for a in answers], np.float64)
    asked, said = column([a.prompt_tokens for a in answers]), column([a.completion_tokens for a in answers])
    asked = None if asked is None else asked * attempts * calls
    said = None if said is None else said * attempts
    # What runs here costs no money; a served model without prices costs nobody knows what.
    cost = np.zeros(len(answers)) if endpoint is None else None
    if card.get("price_in") is not None and asked is not None and said is not None:
        share = endpoint.batch.price if endpoint is not None and endpoint.batch is not None else 1.0
        cost = (asked * card["price_in"] + said * card["price_out"]) / 1e6 * share
    hours: np.ndarray | None = None
    if pace is not None:
        # A request in flight has its share of the endpoint's hour. Time goes with the tokens, where they are known.
        one = pace.seconds / 3600 * calls / at_once
        if said is not None and pace.tokens > 0:
            hours = said * (one / pace.tokens)
        else:
            hours = np.full(len(answers), one / pace.answers)
    tokens = None if asked is None or said is None else asked + said
    return {"prompt_tokens": asked, "completion_tokens": said, "tokens": tokens, "cost_usd": cost, "hours": hours}


def _totals(column: np.ndarray, remaining: int, prompts: int, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """The sum over the remaining requests: as the probe's mean says, and drawn as the bootstrap-t has it.

    Source: Efron and Tibshirani 1993, chapter 12: the interval leans to the side on which a skewed sample errs. From
    twenty lengths it held 96 % of normal truths and 92 % of log-normal ones (percentiles: 96 % and 86 %). The answers
    to come vary too; those to one prompt are taken to be alike.
    """
    n = len(column)
    resampled = column[rng.integers(0, n, (RESAMPLES, n))]
    error = float(column.std()) / np.sqrt(n)
    # A resample of almost equal values would say that nothing is known.
    errors = np.maximum(resampled.std(axis=1) / np.sqrt(n), LEAST_ERROR * error)
    off = (resampled.mean(axis=1) - column.mean()) / errors if error > 0 else np.zeros(RESAMPLES)
    spread = remaining / max(prompts, 1) * np.sqrt(prompts) * column.std(ddof=1 if n > 1 else 0)
    means = column.mean() - off * error
    return float(column.mean() * remaining), np.maximum(
        means * remaining + rng.standard_normal(RESAMPLES) * spread, 0.0
    )


def _interval(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def _sum(parts: Sequence[tuple[float, np.ndarray] | None]) -> Interval | None:
    """The sum over entries, whose probes are independent; None if one of them cannot be told."""
    told = [part for part in parts if part is not None]
    if not told or len(told) < len(parts):
        return None
    return _interval(sum(value for value, _ in told), np.sum([draws for _, draws in told], axis=0))


def _pace(work: Work, card: dict[str, Any], asked: Sequence[Answer], seconds: float, how: How) -> _Pace | None:
    """The pace of this probe, or of an earlier one that asked more of the same."""
    url = getattr(how.settings.endpoints.get(work.model.name), "url", None)
    key = ids.digest("pace", card["model_id"], engine_of(card), work.sampling.content(), url)
    file = how.memo / PACES
    paces = orjson.loads(file.read_bytes()) if file.exists() else {}
    before = _Pace(**paces[key]) if key in paces else None
    answered = [answer for answer in asked if answer.error is None]
    if not answered or (before is not None and before.answers > len(answered)):
        return before
    tokens = sum((answer.completion_tokens or 0) * answer.attempts for answer in answered)
    pace = _Pace(seconds, len(answered), tokens)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(orjson.dumps({**paces, key: asdict(pace)}))
    fresh.replace(file)
    return pace


def _pace_line(pace: _Pace | None, endpoint: Endpoint | None, processes: int) -> str:
    """What the hours rest on."""
    if endpoint is not None and endpoint.batch is not None:
        return "the provider's batch files take up to their window, mostly 24 hours"
    if pace is None:
        return "not measured: the memo held the whole probe; more --rows ask anew"
    each = f"{pace.seconds / pace.answers:.2g} s"
    if endpoint is not None:
        each_of = f", in each of {processes} processes," if processes > 1 else ""
        return f"if {endpoint.concurrency} requests{each_of} are always in flight and take {each} as in the probe"
    return f"at most: the probe took {each} for an answer here, and larger batches are faster"


def _caps(plan: Plan, entries: Sequence[Estimate], root: Path) -> Iterator[Cap]:
    """The caps of the endpoints that these entries ask."""
    for name in dict.fromkeys(entry.model for entry in entries):
        endpoint, asking = plan.settings.endpoints.get(name), [e for e in entries if e.model == name]
        if endpoint is None or f"acquire@{name}" not in served(plan):
            continue
        spent = Ledger(root / "data" / ".memo", name, endpoint.max_tokens, endpoint.max_cost).spent()
        if endpoint.max_tokens is not None:
            yield from _cap(name, "max_tokens", endpoint.max_tokens, spent, asking)
        if endpoint.max_cost is not None:
            yield from _cap(name, "max_cost", endpoint.max_cost, spent, asking)


def _cap(
    name: str, unit: Literal["max_tokens", "max_cost"], cap: float, spent: Spent, entries: Sequence[Estimate]
) -> Iterator[Cap]:
    used = spent.tokens if unit == "max_tokens" else spent.cost_usd
    needs = [(e, e.tokens if unit == "max_tokens" else e.cost_usd) for e in entries]
    told = [(entry, need) for entry, need in needs if need is not None]
    if not told:
        return
    # Without the entries' draws the ends are added, which is wider than the truth and never narrower.
    total = Interval(*(float(sum(getattr(need, end) for _, need in told)) for end in ("value", "low", "high")))
    room, at = cap - used, None
    for entry, need in told:
        if need.value > room:
            reach = max(room, 0) / need.value * entry.remaining
            at = f"{entry.label} after about {reach:,.0f} of {entry.remaining:,} requests"
            break
        room -= need.value
    reached: Literal["no", "perhaps", "yes"] = "yes" if at else "perhaps" if used + total.high > cap else "no"
    yield Cap(name, unit, cap, used, total, reached, at)


def lines(found: Estimates) -> Iterator[str]:
    """The estimates for a person."""
    for entry in found.entries:
        k = entry.requests // max(entry.prompts, 1)
        yield f"{entry.label} of the model {entry.model}"
        yield (
            f"  requests   {entry.requests:,} ({entry.prompts:,} prompts, {k} each); the memo holds {entry.known:,} of "
            f"them ({entry.probe} asked now): {entry.remaining:,} remain"
        )
        if entry.failed:
            yield f"  failed     {entry.failed} of the probe's requests; what they cost is not in this"
        yield f"  tokens     {_with_interval(entry.tokens, _count)}" + (
            f": {_with_interval(entry.prompt_tokens, _count)} asked, "
            f"{_with_interval(entry.completion_tokens, _count)} answered"
            if entry.prompt_tokens and entry.completion_tokens
            else ""
        )
        yield f"  money      {_money(entry)}"
        yield f"  time       {_with_interval(entry.hours, _hours)}, {entry.pace}"
    if len(found.entries) > 1:
        yield "all together"
        for what, name, unit in (
            ("tokens", "tokens", _count),
            ("money", "cost_usd", _dollars),
            ("time", "hours", _hours),
        ):
            yield f"  {what:<9}  {_with_interval(found.total[name], unit)}" + (
                ", one after the other" if name == "hours" else ""
            )
    for cap in found.caps:
        yield _cap_line(cap)
    yield f"In brackets {LEVEL:.0%} intervals from resampled prompts. The probe's answers are kept for the run."


def _cap_line(cap: Cap) -> str:
    unit = _dollars if cap.unit == "max_cost" else _count
    where, to_come = f"run.endpoints.{cap.endpoint}.{cap.unit}", _with_interval(cap.needed, unit)
    said = f"{where} is {unit(cap.cap)}: {unit(cap.spent)} spent, {to_come} to come"
    if cap.reached == "yes":
        return f"{said}. The run would stop there, in {cap.at}, keep all, and go on when the cap is raised"
    if cap.reached == "perhaps":
        return f"{said}. It is enough by the mean and not by the interval: the run may stop there"
    return f"{said}. It is enough"


def _money(entry: Estimate) -> str:
    if entry.cost_usd is None:
        return f"not known: acquire.{entry.model} has no price_in and price_out"
    return _with_interval(entry.cost_usd, _dollars)


def _with_interval(interval: Interval | None, unit: Any) -> str:
    if interval is None:
        return "not known"
    low, high = unit(interval.low), unit(interval.high)
    return unit(interval.value) if low == high else f"{unit(interval.value)} ({low} to {high})"


def _count(value: float) -> str:
    for size, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.0f}"


def _dollars(value: float) -> str:
    if value == 0:
        return "none"
    return f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}"


def _hours(hours: float) -> str:
    return duration(3600 * hours)


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `estimate`."""
    text = "entries of generate (all, and what judges a served model)"
    command.add_argument("entries", nargs="*", metavar="entry", help=text)
    command.add_argument("--rows", type=at_least_one, default=20, metavar="N", help="prompts that are probed (20)")
    command.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def run(entries: list[str], rows: int, as_json: bool) -> None:
    """Print the tokens, money and hours that asking will take, from a probe."""
    plan = resolve(load(PARAMS))
    limit_threads(plan.settings.threads)
    asked = chosen(plan, entries)
    able, waiting = ready(plan, asked, DATA)
    if entries and waiting:
        raise Refused(next(iter(waiting.values())))
    bring_up_to_date(list(dict.fromkeys(label for labels in able.values() for label in labels)), ROOT)
    found = estimate(plan, [e for e in asked if e.label in able], DATA, memo_root(), rows)
    told = [e for e in found.entries if e.completion_tokens is not None and e.remaining]
    answered = {e.label: e.completion_tokens.value / e.remaining for e in told if e.completion_tokens}
    taken = sizes.sizes(plan, DATA, answered)
    if as_json:
        show_json({**asdict(found), "not_estimated": waiting, "sizes": [asdict(size) for size in taken]})
    else:
        show([*lines(found), *(f"not estimated: {why}" for why in waiting.values())])
        show(sizes.lines(taken, lambda size: f"{_count(size)}B"))
