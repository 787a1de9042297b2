"""What a report compares: where every student came from, as the plan tells it, and which pairs answer a question.

A student is compared with the base it was trained from; with every control, which is a student of the same base from
a control selection of the same budget; and, if it learned from a distribution, with a student of the same examples
that learned from the text alone. Students of one `arm:` differ in their seeds alone: they are one line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

TRAINERS = ("train", "distill")
JUDGES = ("evaluate", "compare")
# What two arms of one question are meant to differ in, and what names one.
ASKED = {"of", "objectives", "turns", "beside", "shadow", "feed", "teacher", "arm"}

Kind = Literal["control", "same examples", "base"]
KINDS: tuple[Kind, ...] = ("control", "same examples", "base")


@dataclass(frozen=True)
class Evaluation:
    """A table of `evals`: which model was judged on which pool, and how; `claims` where that is how good its answers
    are, and not how like another's, how fast, and so on."""

    name: str
    model: str
    pool: str
    how: str = ""
    claims: bool = True


@dataclass(frozen=True)
class Line:
    """A line of the results: one evaluation, or those of an arm's students, in the order of their seeds."""

    name: str
    members: tuple[Evaluation, ...]

    @property
    def pool(self) -> str:
        return self.members[0].pool

    def alike(self, other: Line) -> bool:
        """Whether both were judged on the same pool by the same evaluator."""
        one, two = self.members[0], other.members[0]
        return one.pool == two.pool and _use(one.how) == _use(two.how)


@dataclass(frozen=True)
class Arm:
    """A trained student and all that it came from; `name` is what students share that differ in their seeds.

    `control`: all it was trained on was chosen by a control, of the rows that the rules `where` leave. `supervised`: it
    learned from the text of answers alone.
    """

    model: str
    name: str
    seed: int
    base: str
    examples: tuple[str, ...]
    selections: tuple[str, ...]
    control: bool
    where: tuple[str, ...]
    budget: tuple[tuple[str, int], ...]
    teachers: tuple[str, ...]
    objectives: tuple[str, ...]
    supervised: bool
    epochs: float
    recipe: Mapping[str, Any]

    def controls(self, other: Arm) -> bool:
        """Whether this is what chance makes of as much: of all rows, or of those that the other was chosen from."""
        alike = (self.base, self.budget) == (other.base, other.budget)
        chosen = not other.control or (bool(other.where) and not self.where)
        return self.control and alike and chosen and self.where in ((), other.where)


@dataclass(frozen=True)
class Comparison:
    """Two lines on one pool whose difference answers a question, and which of their members are compared."""

    kind: Kind
    first: Line
    second: Line
    also_differs: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ((0, 0),)


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

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the results: what was judged in the same way, of one arm, is one."""
        alike: dict[tuple[str, ...], list[Evaluation]] = {}
        for e in self.evaluations:
            arm = self.arms.get(e.model)
            alike.setdefault((e.name,) if arm is None else (arm.name, e.pool, e.how), []).append(e)
        # One model judged twice in the same way is two lines, not two seeds.
        several = [group for group in alike.values() if 1 < len(group) == len({e.model for e in group})]
        alone = [e for group in alike.values() if group not in several for e in group]
        lines: dict[str, tuple[Evaluation, ...]] = {e.name: (e,) for e in alone}
        for group in several:
            members = tuple(sorted(group, key=lambda e: (self.arms[e.model].seed, e.name)))
            lines[self._name(members, lines)] = members
        return tuple(Line(name, members) for name, members in sorted(lines.items()))

    def _name(self, members: Sequence[Evaluation], taken: Collection[str]) -> str:
        """What the members' names have in common but for their seeds; else their arm's, or the first member's."""
        stems = {e.name.removesuffix(f"_s{self.arms[e.model].seed}") for e in members}
        arm = self.arms[members[0].model].name
        wanted = [*(stems if len(stems) == 1 else ()), arm, f"{arm}_{members[0].pool}"]
        return next((name for name in wanted if name not in taken), members[0].name)

    def pairs(self, first: Line, second: Line) -> tuple[tuple[int, int], ...]:
        """Which members of two lines to compare: those of one seed, and with a model that has none every one.

        Where no seed is common, one is as good as another: the first with the first, and so on.
        """
        ones, twos = range(len(first.members)), range(len(second.members))
        if any(e.model not in self.arms for line in (first, second) for e in line.members):
            # What was not trained here has one member and no seed.
            return tuple((i, j) for i in ones for j in twos)
        seeds = [[self.arms[e.model].seed for e in line.members] for line in (first, second)]
        common = tuple((i, seeds[1].index(seed)) for i, seed in enumerate(seeds[0]) if seed in seeds[1])
        return common or tuple(zip(ones, twos, strict=False))


def read(data: Path) -> Lineage:
    """The lineage of a run from the JSONs that `plan` wrote; plans are by the folder that an instance writes."""
    plans: dict[str, Mapping[str, Any]] = {}
    for path in sorted((data / "plan").glob("*/*.json")):
        plan = json.loads(path.read_text("utf-8"))
        plans[plan["output"]] = plan
    evaluations = tuple(
        Evaluation(p["instance"], p["params"]["model"], p["params"]["pool"], _how(p["params"]), _claims(p))
        for p in plans.values()
        if p["stage"] in JUDGES
    )
    arms = {p["instance"]: _arm(p, plans) for p in plans.values() if p["stage"] in TRAINERS}
    return Lineage(plans, evaluations, arms)


def _how(params: Mapping[str, Any]) -> str:
    """All that an evaluation is asked for, but for the model."""
    return json.dumps({key: value for key, value in params.items() if key != "model"}, sort_keys=True)


def _use(how: str) -> Any:
    """The evaluator that is asked, and beside whom."""
    asked = json.loads(how or "{}")
    return asked.get("use"), asked.get("against")


def _claims(plan: Mapping[str, Any]) -> bool:
    """Whether an evaluation says how good a model's answers are: not beside another, and higher is better."""
    return plan["stage"] == "evaluate" and trait(plan, "evaluator", "better") == "higher"


def _arm(plan: Mapping[str, Any], plans: Mapping[str, Mapping[str, Any]]) -> Arm:
    params = plan["params"]
    teachers = {params["teacher"]} if "teacher" in params else set()
    examples, selections = [], []
    for folder in plan["inputs"]["rows"]:
        if folder.startswith("signals/"):
            teachers.update(probe["model"] for probe in _probes(folder, plans))
            folder = f"examples/{plans[folder]['params']['of']}"
        examples.append(folder)
        pack = plans[folder]["params"]
        selections.append(f"selections/{pack['of']}/{pack['by']}")
    for folder in selections:
        answered = [table.rpartition("/")[2] for table in plans[folder]["inputs"]["responses"]]
        teachers.update(plans[folder]["params"]["entries"] or answered)
    budgets: Counter[str] = Counter()
    for folder in selections:
        budgets.update(plans[folder].get("budget", {}))
    return Arm(
        model=plan["instance"],
        name=params["arm"] or plan["instance"],
        seed=params["seed"],
        base=_base(params["student"], plans),
        examples=tuple(sorted(examples)),
        selections=tuple(sorted(selections)),
        control=bool(selections) and all(trait(plans[s], "selector", "control", False) for s in selections),
        where=tuple(sorted({plans[s]["params"]["where"] for s in selections} - {"true"})),
        budget=tuple(sorted(budgets.items())),
        teachers=tuple(sorted(teachers)),
        objectives=tuple(term["use"]["name"] for turn in params["turns"] or [params] for term in turn["objectives"]),
        supervised=all(told["teacher"] == "none" for told in plan["traits"]["objective"].values()),
        epochs=params["epochs"],
        recipe={key: value for key, value in params.items() if key not in ASKED},
    )


def _probes(folder: str, plans: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was asked of the teachers of a table of signals, or of those that it was made of."""
    plan = plans[folder]
    if plan["stage"] == "probe":
        return [plan["params"]]
    made_of = ("signals", "beside") if trait(plan, "transform", "aligned", False) else ("signals",)
    return [probe for argument in made_of for table in plan["inputs"][argument] for probe in _probes(table, plans)]


def _base(model: str, plans: Mapping[str, Mapping[str, Any]]) -> str:
    """The model that a student began as, before heads or tokens were put to it."""
    plan = plans.get(f"models/{model}", {"stage": None})
    return _base(plan["params"]["base"], plans) if plan["stage"] == "build" else model


def trait(plan: Mapping[str, Any], kind: str, name: str, default: Any = None) -> Any:
    """What the one method of a kind in a plan says of itself."""
    [told] = plan["traits"][kind].values()
    return told.get(name, default)


def comparisons(lineage: Lineage) -> list[Comparison]:
    """Every pair of lines on one pool that answers a question, the questions about controls first."""
    found: list[Comparison] = []
    for first in lineage.lines:
        if first.members[0].model not in lineage.arms or not first.members[0].claims:
            continue
        rivals = [line for line in lineage.lines if line.alike(first) and line is not first]
        found.extend(c for second in rivals if (c := _compare(lineage, first, second, rivals)) is not None)
    return sorted(found, key=lambda c: (KINDS.index(c.kind), c.first.name, c.second.name))


def _compare(lineage: Lineage, first: Line, second: Line, rivals: Sequence[Line]) -> Comparison | None:
    """The question that two lines answer, which is that of their first members to be compared."""
    pairs = lineage.pairs(first, second)
    one, two = first.members[pairs[0][0]].model, second.members[pairs[0][1]].model
    arm, other = lineage.arms[one], lineage.arms.get(two)
    if one == two:
        return None
    if two == arm.base:
        return Comparison("base", first, second, (), pairs)
    if other is None or other.base != arm.base:
        return None
    differs = tuple(
        sorted(k for k in arm.recipe.keys() | other.recipe.keys() if arm.recipe.get(k) != other.recipe.get(k))
    )
    if arm.examples == other.examples:
        more = other.supervised > arm.supervised
        return Comparison("same examples", first, second, differs, pairs) if more else None
    if not other.controls(arm):
        return None
    # A control that learned in the same way isolates the selection; where there is one, the others say less.
    judged = [lineage.arms[e.model] for line in rivals for e in line.members if e.model in lineage.arms]
    alike = any(a.controls(arm) and a.objectives == arm.objectives for a in judged)
    if alike and other.objectives != arm.objectives:
        return None
    return Comparison("control", first, second, differs, pairs)
