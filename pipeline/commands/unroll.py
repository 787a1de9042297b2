"""Unroll: trainings, and what hangs on them, once per seed; or further rounds; written into `params.yaml`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.commands.rounds import history
from pipeline.commands.screen import show
from pipeline.core.workspace import PARAMS
from pipeline.errors import Refused
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.rounds import BY, CHOOSE, SECTION, appended, joined, with_rounds, written
from pipeline.plan.unroll import copies_of, rewritten, unrolled

ABOUT = "repeat trainings with several seeds, or write further rounds, as entries of params.yaml"
MORE = (
    "`unroll kd --seeds 1-3` puts kd_s1, kd_s2 and kd_s3 in the place of train.kd, each with its seed and `arm: kd`; "
    "so for what hangs on it, such as evaluate.kd. The report joins an arm into one line, with intervals over seeds. "
    "`unroll --rounds 2` writes the next two rounds of the section `rounds:`, in which <round> stands for the number "
    "of a round and <before> for that of the one before it."
)


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `unroll`."""
    command.add_argument("trainings", nargs="*", metavar="training", help="such as kd; all of them if none is named")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", nargs="+", type=seeds_of, help="such as 1-3, or 201 202 203")
    what.add_argument("--rounds", type=int, help="write so many rounds behind those that are there")
    text = "begin with the entries of this section that the trainings come from, or with one: select, select.random"
    command.add_argument("--from", dest="first", metavar="ENTRIES", help=text)
    text = "print the new params.yaml and write nothing"
    command.add_argument("--show", action="store_true", dest="only_show", help=text)


def seeds_of(text: str) -> list[int]:
    """The seeds that `7` or `1-3` names."""
    ends = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if ends is None:
        raise argparse.ArgumentTypeError("a seed is a number, or several as 1-3")
    return list(range(int(ends[1]), int(ends[2] or ends[1]) + 1))


def run(
    trainings: Sequence[str],
    seeds: Sequence[Sequence[int]] | None,
    rounds: int | None,
    first: str | None,
    only_show: bool,
) -> None:
    """Write the repeated entries into `params.yaml`, or show them."""
    if seeds is None and (trainings or first):
        raise Refused("--rounds writes what the section `rounds:` holds; it takes no training and no --from")
    given = load(PARAMS)
    resolve(given)
    text, told = _rounds(given, rounds or 0) if seeds is None else _seeds(given, trainings, seeds, first)
    if only_show:
        print(text, end="")
        return
    fresh = PARAMS.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    fresh.replace(PARAMS)
    show([f"{PARAMS}: {told}. `stillhouse status` says what will run"])


def _seeds(
    given: Mapping[str, Any], trainings: Sequence[str], seeds: Sequence[Sequence[int]], first: str | None
) -> tuple[str, str]:
    """The text with trainings once per seed, and what is told of it."""
    drawn = list(dict.fromkeys(seed for some in seeds for seed in some))
    if len(drawn) < 2:
        raise Refused(f"one seed has no interval: write several, such as --seeds 1-{max(3, *drawn)}")
    copies = copies_of(given, drawn, trainings, first)
    resolve(unrolled(given, copies))
    told = ", ".join(f"{section}.{name}" for section, name in copies)
    return rewritten(PARAMS.read_text("utf-8"), copies), f"{told}: {len(drawn)} entries each now"


def _rounds(given: Mapping[str, Any], more: int) -> tuple[str, str]:
    """The text with further rounds, and what is told of it."""
    if more < 1:
        raise Refused(f"--rounds: must be at least 1, not {more}")
    by = (given.get(SECTION) or {}).get(CHOOSE, {}).get(BY)
    gains = {row["round"]: row["gain"] for row in history(given, by)} if by else {}
    entries = with_rounds(given, more, gains)
    resolve(joined(given, entries))
    told = f"rounds 1 to {written(given) + more} are there, {sum(map(len, entries.values()))} entries of them new"
    return appended(PARAMS.read_text("utf-8"), entries), told
