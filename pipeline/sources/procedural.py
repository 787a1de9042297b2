"""The shipped demonstration's data: small tasks of eight kinds with worked solutions (`text/procedures.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.tables import ids
from pipeline.text.procedures import DOMAINS, Dice, DomainName, solution

# The smallest kind has 128 distinct tasks, the largest that a user may want whole some thousands: this many repeats
# in a row mean that there is nothing left, not bad luck.
REPEATS = 20_000

VERIFIER = "text.marked"

Level = Literal[0, 1, 2]
Cell = tuple[DomainName, Level]
Share = Annotated[float, Field(ge=0, le=1)]


def row(domain: DomainName, level: int, prompt: str, slip: bool) -> dict[str, object]:
    """A prompt's columns; the reference is right even where the solution is not."""
    return {
        "messages": [{"role": "user", "content": prompt}],
        "domain": domain,
        "level": level,
        "group": DOMAINS[domain].key(prompt),
        "verifier": VERIFIER,
        "reference": DOMAINS[domain].solve(prompt, False)[1],
        "solution": solution(domain, prompt, slip),
    }


@source(verifiers=(VERIFIER,))
def tasks(
    *,
    rows: PositiveInt,
    seed: int,
    domains: dict[DomainName, PositiveFloat] | None = None,
    levels: tuple[Level, ...] = (0, 1, 2),
    operands: Literal["all", "easy"] = "all",
    slip: Share = 0.0,
) -> Rows:
    """Distinct tasks of eight kinds, dealt to the kinds by their weights (`domains`) and evenly to the levels.

    `slip` is the share of rows whose solution carries the kind's misconception; references are always right, and the
    prompts do not depend on it.

    Paper: none; the tasks were made for this demonstration.
    Differs: nothing to differ from.
    """
    weights = domains or {d: 1.0 for d in DOMAINS if operands == "all" or d != "sort"}
    cells = {(d, level): w / len(levels) for d, w in weights.items() for level in levels}
    seen: set[str] = set()
    for (domain, level), n in apportion(rows, cells).items():
        dice = Dice(ids.seed_of(seed, "procedural.tasks", domain, level))
        for prompt in new_prompts(dice, domain, level, n, operands, seen):
            slipped = ids.draw(seed, "slip", prompt) < slip
            yield GivenRow(f"procedural.tasks seed {seed}", row(domain, level, prompt, slipped))


def new_prompts(dice: Dice, domain: DomainName, level: int, n: int, operands: str, seen: set[str]) -> Iterator[str]:
    """n prompts that were not seen, not at a lower level either; refuses if the kind has fewer."""
    kind, made, repeats = DOMAINS[domain], 0, 0
    while made < n:
        prompt = kind.draw(dice, level)
        if prompt in seen or (operands == "easy" and not kind.easy(prompt)):
            repeats += 1
            if repeats == REPEATS:
                raise Refused(
                    f"procedural.tasks: {domain} at level {level} has only {made} different prompts "
                    f"(operands: {operands}), and {n} are asked for. "
                    "Ask for fewer rows, or lower its weight in `domains`."
                )
            continue
        repeats, made = 0, made + 1
        seen.add(prompt)
        yield prompt


def apportion(total: int, weights: Mapping[Cell, float]) -> dict[Cell, int]:
    """Whole numbers that sum to the total and are as near to the weights' shares as can be (largest remainders)."""
    whole = sum(weights.values())
    shares = {cell: total * weight / whole for cell, weight in weights.items()}
    counts = {cell: int(share) for cell, share in shares.items()}
    by_remainder = sorted(shares, key=lambda cell: counts[cell] - shares[cell])
    for cell in by_remainder[: total - sum(counts.values())]:
        counts[cell] += 1
    return counts
