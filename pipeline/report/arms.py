"""What a report compares: where every student came from, as the plan tells it, and which pairs answer a question.

A student is compared with the base it was trained from; with every control, which is a student of the same base from
a random selection of the same budget; and, if it learned from a distribution, with a student of the same examples
that learned from the text alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RANDOM = "sampling.random"
TRAINERS = ("train", "distill")
# What two arms of one question are meant to differ in.
ASKED = {"of", "objectives", "teacher"}

Kind = Literal["control", "same examples", "base"]
KINDS: tuple[Kind, ...] = ("control", "same examples", "base")


@dataclass(frozen=True)
class Evaluation:
    """A table of `evals`: which model was judged on which pool."""

    name: str
    model: str
    pool: str


@dataclass(frozen=True)
class Arm:
    """A trained student and all that it came from."""

    model: str
    base: str
    examples: tuple[str, ...]
    selections: tuple[str, ...]
    selectors: tuple[str, ...]
    budget: tuple[tuple[str, float], ...]
    teachers: tuple[str, ...]
    objectives: tuple[str, ...]
    epochs: float
    recipe: Mapping[str, Any]

    @property
    def random(self) -> bool:
        """Whether all it was trained on was chosen at random."""
        return bool(self.selectors) and set(self.selectors) == {RANDOM}

    @property
    def supervised(self) -> bool:
        """Whether it learned from the text of the answers alone."""
        return all(name.startswith("supervised.") for name in self.objectives)


@dataclass(frozen=True)
class Comparison:
    """Two evaluations on one pool whose difference answers a question."""

    kind: Kind
    first: Evaluation
    second: Evaluation
    also_differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """The plan of a run, read from `data/plan`."""

    plans: Mapping[str, Mapping[str, Any]]
    evaluations: tuple[Evaluation, ...]
    arms: Mapping[str, Arm]

    def of(self, *stages: str) -> list[Mapping[str, Any]]:
        """The plans of all instances of these stages, in the order of their names."""
        return [plan for plan in self.plans.values() if plan["stage"] in stages]

    @property
    def teachers(self) -> tuple[str, ...]:
        """Every model that some student learned from."""
        return tuple(sorted({name for arm in self.arms.values() for name in arm.teachers}))


def read(data: Path) -> Lineage:
    """The lineage of a run from the JSONs that `plan` wrote; plans are by the folder that an instance writes."""
    plans: dict[str, Mapping[str, Any]] = {}
    for path in sorted((data / "plan").glob("*/*.json")):
        plan = json.loads(path.read_text("utf-8"))
        plans[plan["output"]] = plan
    evaluations = tuple(
        Evaluation(p["instance"], p["params"]["model"], p["params"]["pool"])
        for p in plans.values()
        if p["stage"] == "evaluate"
    )
    arms = {p["instance"]: _arm(p, plans) for p in plans.values() if p["stage"] in TRAINERS}
    return Lineage(plans, evaluations, arms)


def _arm(plan: Mapping[str, Any], plans: Mapping[str, Mapping[str, Any]]) -> Arm:
    params = plan["params"]
    teachers = {params["teacher"]} if "teacher" in params else set()
    examples, selections = [], []
    for folder in plan["inputs"]["rows"]:
        if folder.startswith("signals/"):
            probe = plans[folder]["params"]
            teachers.add(probe["model"])
            folder = f"examples/{probe['of']}"
        examples.append(folder)
        pack = plans[folder]["params"]
        selections.append(f"selections/{pack['of']}/{pack['by']}")
    chosen = [plans[folder]["params"] for folder in selections]
    for folder in selections:
        answered = [table.rpartition("/")[2] for table in plans[folder]["inputs"]["responses"]]
        teachers.update(plans[folder]["params"]["entries"] or answered)
    budgets: dict[str, float] = {}
    for select in chosen:
        for key, value in {**select, **select["use"]["arguments"]}.items():
            if key.startswith("budget") and value is not None:
                budgets[key] = budgets.get(key, 0) + value
    return Arm(
        model=plan["instance"],
        base=params["student"],
        examples=tuple(sorted(examples)),
        selections=tuple(sorted(selections)),
        selectors=tuple(sorted(select["use"]["name"] for select in chosen)),
        budget=tuple(sorted(budgets.items())),
        teachers=tuple(sorted(teachers)),
        objectives=tuple(term["use"]["name"] for term in params["objectives"]),
        epochs=params["epochs"],
        recipe={key: value for key, value in params.items() if key not in ASKED},
    )


def comparisons(lineage: Lineage) -> list[Comparison]:
    """Every pair of evaluations on one pool that answers a question, the questions about controls first."""
    found = []
    for first in lineage.evaluations:
        arm = lineage.arms.get(first.model)
        if arm is None:
            continue
        rivals = [e for e in lineage.evaluations if e.pool == first.pool and e.model != first.model]
        judged = {e.model: lineage.arms[e.model] for e in rivals if e.model in lineage.arms}
        for second in rivals:
            found.extend(_compare(arm, first, second, judged))
    return sorted(found, key=lambda c: (KINDS.index(c.kind), c.first.name, c.second.name))


def _compare(arm: Arm, first: Evaluation, second: Evaluation, judged: Mapping[str, Arm]) -> list[Comparison]:
    if second.model == arm.base:
        return [Comparison("base", first, second)]
    other = judged.get(second.model)
    if other is None or other.base != arm.base:
        return []
    differs = tuple(
        sorted(k for k in arm.recipe.keys() | other.recipe.keys() if arm.recipe.get(k) != other.recipe.get(k))
    )
    if arm.examples == other.examples:
        return [Comparison("same examples", first, second, differs)] if other.supervised > arm.supervised else []
    if arm.random or not other.random or arm.budget != other.budget:
        return []
    # A control that learned in the same way isolates the selection; where there is one, the others say less.
    same = (arm.base, arm.budget, arm.objectives)
    alike = any(a.random and (a.base, a.budget, a.objectives) == same for a in judged.values())
    return [] if alike and other.objectives != arm.objectives else [Comparison("control", first, second, differs)]
