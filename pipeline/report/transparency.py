"""The transparency index of a run: what of it is on record, so that others could tell what was done, and repeat it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.report.arms import Lineage
from pipeline.report.made import Made
from pipeline.report.results import Results


@dataclass(frozen=True)
class Item:
    """A question of the index, its points, and what of this run answers it; None where nothing does."""

    group: str
    name: str
    points: int
    shown: str | None

    @property
    def earned(self) -> int:
        return 0 if self.shown is None else self.points


Shown = Callable[[Lineage, Results, Made], str | None]


def _some(*stages: str) -> Shown:
    """The entries of these stages, by name."""

    def shown(lineage: Lineage, results: Results, made: Made) -> str | None:
        names = [f"{plan['stage']}.{plan['instance']}" for plan in lineage.of(*stages)]
        return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else None

    return shown


def _learns(*families: str) -> Shown:
    """The students whose objectives are of a family; that there are none is said by the plan, and counts."""

    def shown(lineage: Lineage, results: Results, made: Made) -> str | None:
        names = [a.model for a in lineage.arms.values() if any(o.split(".")[0] in families for o in a.objectives)]
        return ", ".join(names) or "not used"

    return shown


def _code(lineage: Lineage, results: Results, made: Made) -> str | None:
    """The commit, if git holds all of the code."""
    return f"commit {made.commit}" if made.commit.isalnum() and made.commit != "unknown" else None


def _bases(lineage: Lineage, results: Results, made: Made) -> str | None:
    return ", ".join(sorted({arm.base for arm in lineage.arms.values()})) or None


def _ablations(lineage: Lineage, results: Results, made: Made) -> str | None:
    n = sum(a.comparison.kind != "base" and a.refused is None for a in results.answers)
    return f"{n} comparisons with a control" if n else None


def _dimensions(lineage: Lineage, results: Results, made: Made) -> str | None:
    n = len({domain for one in results.judged.values() for domain in one.sizes})
    return f"{n} domains" if n > 1 else None


def _measures(lineage: Lineage, results: Results, made: Made) -> str | None:
    return ", ".join(sorted({one.measure for one in (*results.judged.values(), *results.others.values())})) or None


def _alike(lineage: Lineage, results: Results, made: Made) -> str | None:
    """Whether every line of a pool was judged as every other."""
    ways: dict[tuple[str, str], set[str]] = {}
    for line in lineage.lines:
        if line.name in results.judged:
            ways.setdefault((line.pool, results.judged[line.name].measure), set()).add(line.members[0].how)
    return "the same for all" if ways and all(len(hows) == 1 for hows in ways.values()) else None


def _nothing(lineage: Lineage, results: Results, made: Made) -> str | None:
    return None


# Huang et al. 2024 (O1 Replication Journey, part 2, arXiv 2411.16489), section 4: 100 points, all of an item or none;
# what is not used, and said not to be, has its points. Differs: of items whose points the paper gives as a sum, the
# split is ours; only what a plan or a record of this run says counts, so prose earns nothing here.
INDEX: Sequence[tuple[str, str, int, Shown]] = (
    ("data", "sources", 4, _some("ingest")),
    ("data", "distribution and format", 3, _some("quality")),
    ("data", "selection criteria", 3, _some("select")),
    ("data", "synthetic process: prompts, checks", 4, _some("generate")),
    ("method", "base model", 4, _bases),
    ("method", "search algorithm", 6, _some("derive", "judge", "generate")),
    ("method", "reinforcement learning", 6, _learns("policy")),
    ("method", "long thought", 6, _some("generate")),
    ("method", "training pipeline", 3, _some("train", "distill")),
    ("method", "compute", 2, lambda lineage, results, made: "the cost below" if made.judged_at else None),
    ("method", "hyper-parameters", 2, _some("train", "distill")),
    ("method", "ablations", 4, _ablations),
    ("evaluation", "why these benchmarks", 4, _nothing),
    ("evaluation", "dimensions", 4, _dimensions),
    ("evaluation", "definitions of the metrics", 4, _measures),
    ("evaluation", "metrics of its own", 4, _measures),
    ("evaluation", "one metric for all baselines", 4, _alike),
    ("evaluation", "conditions, such as temperature", 4, _some("evaluate", "compare")),
    ("open", "training data", 3, _nothing),
    ("open", "synthetic data", 5, _nothing),
    ("open", "weights", 5, _nothing),
    ("open", "training code", 4, _code),
    ("open", "evaluation code", 4, _code),
    ("open", "instructions", 4, _code),
    ("open", "paper", 4, _nothing),
)


def index(lineage: Lineage, results: Results, made: Made) -> list[Item]:
    """Every item with what answers it."""
    return [Item(group, name, points, shown(lineage, results, made)) for group, name, points, shown in INDEX]
