"""Cost beside quality: which models are dominated by another, and what is kept of the teacher at every length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.arms import Evaluation, Lineage
from pipeline.report.tables import Tables

# Lengths of prompts are cut into so many parts of equally many items.
LENGTHS = 4
# What must be small, by quantity of `cost.latency`; its metric is the seconds.
COSTS = ("seconds", "parameters", "resident")


@dataclass(frozen=True)
class Length:
    """Items of like prompts: how many tokens these have, the seconds of an answer, and the share that is right, of the
    model and of its teacher."""

    least: float
    most: float
    n: int
    seconds: float
    right: float | None
    teacher: float | None

    @property
    def kept(self) -> float | None:
        """The model's share over the teacher's."""
        return self.right / self.teacher if self.right is not None and self.teacher else None


@dataclass(frozen=True)
class Point:
    """A model: how good it is, what an answer costs, and who is as good or better for no more."""

    model: str
    pool: str
    quality: float
    costs: Mapping[str, float]
    lengths: tuple[Length, ...] = ()
    dominated_by: tuple[str, ...] = ()


def points(lineage: Lineage, tables: Tables) -> list[Point]:
    """Every model whose cost and whose greedy answers were measured on one pool."""
    found = []
    plain = {(e.model, e.pool): e for e in lineage.evaluations if _uses(lineage, e) == "answers.greedy"}
    for cost in (e for e in lineage.evaluations if _uses(lineage, e) == "cost.latency"):
        own = plain.get((cost.model, cost.pool))
        if own is None or not {f"evals/{cost.name}", f"evals/{own.name}"} <= tables.scans.keys():
            continue
        arm = lineage.arms.get(cost.model)
        teacher = next((plain[t, cost.pool] for t in (arm.teachers if arm else ()) if (t, cost.pool) in plain), None)
        source = tables.source(f"evals/{cost.name}")
        [quality] = tables.row(f"SELECT avg(metric) FROM {tables.source(f'evals/{own.name}')}")
        said = tables.row(
            f"SELECT median(metric), any_value(quantities['parameters']), max(quantities['resident']) FROM {source}"
        )
        if quality is not None:
            costs = {name: value for name, value in zip(COSTS, said, strict=True) if value is not None}
            found.append(Point(cost.model, cost.pool, quality, costs, _lengths(tables, cost, own, teacher)))
    return dominated(found)


def dominated(points: Sequence[Point]) -> list[Point]:
    """The points with who dominates them: no worse in quality and in every cost that both have, and better in one."""

    def beats(one: Point, other: Point) -> bool:
        both = [name for name in COSTS if name in one.costs and name in other.costs]
        no_worse = one.quality >= other.quality and all(one.costs[c] <= other.costs[c] for c in both)
        better = one.quality > other.quality or any(one.costs[c] < other.costs[c] for c in both)
        return one.pool == other.pool and bool(both) and no_worse and better

    told = [
        Point(p.model, p.pool, p.quality, p.costs, p.lengths, tuple(o.model for o in points if beats(o, p)))
        for p in points
    ]
    return sorted(told, key=lambda p: (p.pool, -p.quality, p.model))


def _lengths(tables: Tables, cost: Evaluation, own: Evaluation, teacher: Evaluation | None) -> tuple[Length, ...]:
    joins = f"LEFT JOIN {tables.source(f'evals/{own.name}')} o USING (item_id)"
    shares = "avg(o.metric), NULL"
    if teacher is not None and f"evals/{teacher.name}" in tables.scans:
        joins += f" LEFT JOIN {tables.source(f'evals/{teacher.name}')} t USING (item_id)"
        shares = "avg(o.metric), avg(t.metric)"
    text = (
        f"SELECT min(size), max(size), count(*), median(c.metric), {shares} FROM (SELECT item_id, metric, "
        f"quantities['prompt_tokens'] AS size, ntile({LENGTHS}) OVER (ORDER BY size, item_id) AS part "
        f"FROM {tables.source(f'evals/{cost.name}')}) c {joins} WHERE size IS NOT NULL GROUP BY part ORDER BY part"
    )
    return tuple(Length(*row) for row in tables.rows(text))


def _uses(lineage: Lineage, evaluation: Evaluation) -> str:
    [name] = lineage.plans[f"evals/{evaluation.name}"]["traits"]["evaluator"]
    return name
