"""Unroll: trainings, and what hangs on them, once per seed, written into `params.yaml`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from pipeline.commands.screen import show
from pipeline.core.workspace import PARAMS
from pipeline.errors import Refused
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.unroll import copies_of, rewritten, unrolled

ABOUT = "repeat trainings with several seeds, as entries of params.yaml"
MORE = (
    "`unroll kd --seeds 1-3` puts kd_s1, kd_s2 and kd_s3 in the place of train.kd, each with its seed and `arm: kd`; "
    "so for what hangs on it, such as evaluate.kd. The report joins an arm into one line, with intervals over seeds."
)


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `unroll`."""
    command.add_argument("trainings", nargs="*", metavar="training", help="such as kd; all of them if none is named")
    command.add_argument("--seeds", nargs="+", required=True, type=seeds_of, help="such as 1-3, or 201 202 203")
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


def run(trainings: Sequence[str], seeds: Sequence[Sequence[int]], first: str | None, only_show: bool) -> None:
    """Write the repeated entries into `params.yaml`, or show them."""
    drawn = list(dict.fromkeys(seed for some in seeds for seed in some))
    if len(drawn) < 2:
        raise Refused(f"one seed has no interval: write several, such as --seeds 1-{max(3, *drawn)}")
    given = load(PARAMS)
    resolve(given)
    copies = copies_of(given, drawn, trainings, first)
    resolve(unrolled(given, copies))
    text = rewritten(PARAMS.read_text("utf-8"), copies)
    if only_show:
        print(text, end="")
        return
    fresh = PARAMS.with_suffix(".new")
    fresh.write_text(text, "utf-8")
    fresh.replace(PARAMS)
    told = ", ".join(f"{section}.{name}" for section, name in copies)
    show([f"{PARAMS}: {told}: {len(drawn)} entries each now. `stillhouse status` says what will run"])
