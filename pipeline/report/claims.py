"""Claims: what a comparison may be said to show, beside the others on the page, and what would decide it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from pipeline.report.arms import Arm, Comparison, Lineage, trait
from pipeline.report.curves import Effort
from pipeline.report.results import Answered
from pipeline.report.statistics import LEVEL, holm, items_needed, seeds_needed

# Two students had as many tokens if their numbers differ by no more than this share.
EQUAL = 0.01
ALPHA = 1 - LEVEL
# What decides how many tokens and steps a training has, and how far each goes.
SHARED = ("epochs", "batch_rows", "accumulate", "optimizer", "learning_rate", "seed")


@dataclass(frozen=True)
class Lack:
    """A claim that nothing here can carry: what it is about, why, and the entries that would."""

    about: str
    why: str
    entries: str


def weighed(answers: Sequence[Answered], efforts: Mapping[str, Effort]) -> tuple[Answered, ...]:
    """The comparisons, without a claim where both had not the same budget, each with its p among all others."""
    told = [replace(a, refused=unequal(a.comparison, efforts)) for a in answers]
    claims = [a for a in told if a.refused is None and a.chance is not None]
    raised = dict(zip((id(a) for a in claims), holm([a.chance for a in claims if a.chance is not None]), strict=True))
    return tuple(replace(a, corrected=raised.get(id(a))) for a in told)


def unequal(compared: Comparison, efforts: Mapping[str, Effort]) -> str | None:
    """Why two students were not held to one budget; None if they were, or if one is what the other began as."""
    both = [efforts[line.members[0].model] for line in (compared.first, compared.second)
            if line.members[0].model in efforts]  # fmt: skip
    if compared.kind == "base" or len(both) < 2:
        return None
    least, most = sorted(max(1, e.tokens) for e in both)
    if most <= (1 + EQUAL) * least:
        return None
    return (
        f"{most / least - 1:.0%} more tokens for one of them, so the two are not held to one budget; give both as many"
    )


def decides(answered: Answered) -> str | None:
    """What would decide an inconclusive comparison, if the effect is the one that was seen; None for any other."""
    if answered.verdict != "inconclusive":
        return None
    if answered.difference.value == 0:
        return "No effect was seen, so no number of items or seeds is told that would decide."
    # The level at which this one is judged beside the others.
    alpha = ALPHA * ((answered.chance or 1.0) / answered.corrected if answered.corrected else 1.0)
    over, chance = answered.over, "four times in five, if the effect is the one seen"
    if over is not None and (over.p or 0.0) > alpha:
        wanted = seeds_needed(over, answered.seeds, alpha)
        if wanted is None:
            return "For the effect seen, more than a thousand seeds would be needed."
        more = max(wanted - answered.seeds, 1)
        return f"{more:,} more seeds, {answered.seeds + more:,} in all, would decide it {chance}."
    wanted = items_needed(answered.difference, answered.n, alpha)
    if wanted is None:
        return "For the effect seen, more than ten million items would be needed."
    more = max(wanted - answered.n, 1)
    return f"{more:,} more items, {answered.n + more:,} in all, would decide it {chance}."


def lacks(lineage: Lineage, comparisons: Iterable[Comparison]) -> list[Lack]:
    """The claims that a student stands for and that lack their control: what it was chosen by, what it learnt by."""
    has = {(c.first.name, c.kind) for c in comparisons}
    found = []
    for line in lineage.lines:
        arm = lineage.arms.get(line.members[0].model)
        if arm is None or not line.members[0].claims:
            continue
        chosen = [lineage.plans[s] for s in arm.selections if not trait(lineage.plans[s], "selector", "control", False)]
        if chosen and (line.name, "control") not in has:
            found.append(_selection(line.name, arm, chosen[0], lineage))
        if not arm.supervised and (line.name, "same examples") not in has:
            found.append(_objective(line.name, arm, lineage))
    return found


def _selection(line: str, arm: Arm, plan: Mapping[str, Any], lineage: Lineage) -> Lack:
    params, name = plan["params"], f"{plan['instance']}_random"
    budget = {key: value for key, value in params.items() if key.startswith("budget_") and value is not None}
    why = f"no student of {arm.base} was trained on as much, chosen at random, and judged on the same pool"
    if not budget:
        return Lack(f"{line}: its selection", f"{why}; give the selection a budget first", _yaml(
            {"select": {plan["instance"]: {"budget_tokens": sum(dict(arm.budget).values()) or "..."}}}))  # fmt: skip
    chosen = {"of": params["of"], **({"from": params["entries"]} if params.get("entries") else {})}
    return Lack(f"{line}: its selection", why, _yaml({
        "select": {name: {**chosen, "use": "sampling.random", **budget}},
        "quality": {f"{name}_examples": {"of": f"examples/{name}", "suite": "examples"}},
        "pack": {name: {"of": params["of"], "by": name, "student": arm.base}},
        **_trained(name, f"examples/{name}", arm, lineage),
    }))  # fmt: skip


def _objective(line: str, arm: Arm, lineage: Lineage) -> Lack:
    why = "no student learnt from the text of the same rows alone, in as many steps, and was judged on the same pool"
    return Lack(f"{line}: its objective", why, _yaml(_trained(f"{arm.name}_text", arm.examples[0], arm, lineage)))


def _trained(name: str, of: str, arm: Arm, lineage: Lineage) -> dict[str, Any]:
    """A student of cross-entropy, trained as an arm was, and its evaluation."""
    [judged] = [e for e in lineage.evaluations if e.model == arm.model and e.claims][:1]
    own = {key: value for key, value in arm.recipe.items() if key in SHARED}
    objectives = [{"use": "supervised.cross_entropy"}]
    return {
        "train": {name: {"of": of, "student": arm.base, **own, "objectives": objectives}},
        "evaluate": {name: {"model": name, "pool": judged.pool}},
    }


def _yaml(entries: Mapping[str, Any]) -> str:
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
