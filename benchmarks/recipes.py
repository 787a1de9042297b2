"""What every method does against its control: raw figures by seed, and one table of them all, `docs/methods.md`.

    make recipes                # goes on where it stopped; half an hour on two cores
    PYTHONPATH=. python benchmarks/recipes.py --only ddk answers --seeds 1 2 --out /tmp/try      # to try something

There are two sorts of proof. A *trial* (`benchmarks/trials/`) has its method and its control in a small world, in
seconds. A *graph* is a recipe that runs as any other, and trains a student for each of them, on the embedded pair.
Either draws everything anew for every seed: data, answers, selections, training and what is asked. A result that was
made by other code or other parameters is made again; one that is up to date is left. Parameters were chosen on seeds 1
and 2; what is told are others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.graphs import GRAPHS
from benchmarks.made_by import made_by
from benchmarks.trials.trial import TRIALS, Trial
from pipeline.contracts import EVALS
from pipeline.core.driver import run_instance
from pipeline.core.graph import upstream
from pipeline.core.settings import limit_threads
from pipeline.plan import rounds
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.report.statistics import Verdict, over_seeds, verdict
from pipeline.tables import ids
from pipeline.tables.parquet import Scan

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "recipes"
PAGE = ROOT / "docs" / "methods.md"
GROUPS = (
    "mixtures",
    "diversity",
    "corpora",
    "answers",
    "copies",
    "synthesis",
    "logits",
    "sets",
    "features",
    "experts",
    "beside",
    "feedback",
    "judged",
    "memorised",
    "exchange",
    "ratio",
    "relations",
    "seeing",
    "languages",
    "architectures",
    "codes",
)
SEEDS = tuple(range(101, 109))
GRAPH_SEEDS = SEEDS[:3]
# How many of a recipe are told, where it is another number than 3.
ROUNDS = {"bandit": 8}
SAID: Mapping[Verdict, str] = {"helps": "helps", "inconclusive": "no gain", "does not help": "does not help"}

for group in GROUPS:
    importlib.import_module(f"benchmarks.trials.{group}")


@dataclass(frozen=True)
class Row:
    """A method beside its control, with a figure of each per seed, [S, 2]."""

    after: str
    method: str
    claim: str
    control: str
    measure: str
    less: bool
    figures: np.ndarray
    date: str

    def cells(self) -> list[str]:
        """The row of the table."""
        about = [self.after, f"`{self.method}`", self.claim, self.control, self.measure]
        if not len(self.figures):
            return [*about, *["-"] * 4, "not run yet", "0", "-"]
        ours, theirs = self.figures.mean(0)
        better = (self.figures[:, 1] - self.figures[:, 0]) * (1 if self.less else -1)
        over = over_seeds(better[:, None])
        value, low, high = (f"{end:+.3g}" for end in (over.value, over.low, over.high))
        return [
            *about, f"{ours:.3g}", f"{theirs:.3g}", value, f"{low} to {high}", SAID[verdict(over)],
            str(len(self.figures)), self.date,
        ]  # fmt: skip


COLUMNS = (
    "after", "method", "claim", "control", "measure", "method's", "control's", "better by", "95 % over seeds",
    "verdict", "seeds", "date",
)  # fmt: skip


def rows(name: str, found: Mapping[str, Any]) -> Iterator[Row]:
    """What a result says; nothing before it has all its seeds."""
    seeds, date = list(found["figures"].values()), found["date"]
    seeds = seeds if len(seeds) >= len(GRAPH_SEEDS) else []
    if name in TRIALS:
        t = TRIALS[name]
        both = np.array([[seed["method"], seed["control"]] for seed in seeds])
        yield Row(t.after, " ".join(t.methods[0]), t.claim, t.control, t.measure, t.less, both, date)
        return
    for claim in GRAPHS[name]:
        both = np.array([[seed[claim.student], seed[claim.beside]] for seed in seeds])
        about = (claim.after, claim.method, claim.claim, claim.control, claim.measure, claim.less)
        yield Row(*about, both, date)


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """`docs/methods.md`."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name in [*TRIALS, *GRAPHS]:
        found = results.get(name, {"figures": {}, "date": ""})
        lines += [f"| {' | '.join(row.cells())} |" for row in rows(name, found)]
    return WORDS.format(table="\n".join(lines))


def kept(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All results, by name."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("*.json"))}


def made_now(name: str) -> dict[str, object]:
    """What the result of a proof hangs on, as of now."""
    return TRIALS[name].made_by() if name in TRIALS else made_by(load(ROOT / "recipes" / f"{name}.yaml"))


def tried(trial: Trial, seed: int) -> dict[str, float]:
    """A trial's figures for one seed."""
    return dict(zip(("method", "control"), (round(float(figure), 6) for figure in trial.run(seed)), strict=True))


def trained(name: str, seed: int) -> dict[str, float]:
    """What share each model of a graph gets right, in per cent, or the mean of what else its items are judged by.
    Instances run one after the other, in this process, and a round when what is before it has run."""
    params = load(ROOT / "recipes" / f"{name}.yaml") | {"seed": seed, "run": {"executor": "inline"}}
    right, ran = dict[str, float](), set[str]()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        shutil.copytree(ROOT / "data/embedded", data / "embedded")
        shutil.copyfile(ROOT / "dvc.yaml", Path(folder) / "dvc.yaml")
        with chdir(folder):
            limit_threads(1)
            for turn in range(1 + (ROUNDS.get(name, 3) if rounds.SECTION in params else 0)):
                if turn:
                    params = rounds.joined(params, rounds.with_rounds(params, 1, gains(params, right)))
                ingest = [(entry, one | {"seed": ids.seed_of(seed, "recipes", place)})
                          for place, (entry, one) in enumerate(params["ingest"].items())]  # fmt: skip
                plan = resolve(params | {"ingest": dict(ingest)})
                *order, _ = TopologicalSorter(upstream(plan)).static_order()
                for label in (label for label in order if label not in ran):
                    run_instance(plan.instances[label], plan.settings, data, Path(folder))
                    ran.add(label)
                evals = {instance.name: Scan(EVALS, (data / instance.output,)) for instance in plan.of("evaluate")}
                right = {model: figure(scan.read(["metric", "measure"])) for model, scan in evals.items()}
    return dict(sorted(right.items()))


def figure(rows: pa.Table) -> float:
    """The mean of an evaluation's metric, in per cent where it is 0 or 1."""
    mean = pc.mean(rows["metric"]).as_py()
    return round(100 * mean, 3) if set(rows["measure"].to_pylist()) == {"accuracy"} else round(mean, 5)


def gains(params: Mapping[str, Any], right: Mapping[str, float]) -> dict[int, float]:
    """By how many points every round has brought on the student that its section chooses by."""
    by = params[rounds.SECTION].get(rounds.CHOOSE, {}).get(rounds.BY)
    of = {entry["model"]: right[name] for name, entry in params["evaluate"].items() if name in right}
    return {n: of[f"{by}_{n}"] - of[f"{by}_{n - 1}"] for n in range(1, rounds.written(params) + 1)} if by else {}


def main() -> None:
    """Make what is not up to date, one after the other, and the page."""
    from gateway import commit, machine

    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--only", nargs="+", choices=[*TRIALS, *GRAPHS], default=[*TRIALS, *GRAPHS], metavar="PROOF")
    top.add_argument("--seeds", type=int, nargs="+", help="others than those that are told")
    top.add_argument("--out", type=Path, default=RESULTS)
    given = top.parse_args()
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    there = kept(out)
    for name in given.only:
        by, seeds = made_now(name), given.seeds or list(SEEDS if name in TRIALS else GRAPH_SEEDS)
        if name not in there or there[name]["made_by"] != by:
            there[name] = {"made_by": by, "seconds": 0.0, "figures": {}}
        found = there[name]
        for seed in (seed for seed in seeds if str(seed) not in found["figures"]):
            began = time.time()
            figures = tried(TRIALS[name], seed) if name in TRIALS else trained(name, seed)
            found["figures"][str(seed)] = figures
            found |= {
                "date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "commit": commit(),
                "seconds": round(found["seconds"] + time.time() - began, 1),
            }  # fmt: skip
            # After each seed, so that what is made need not be made again.
            (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(f"{name}, seed {seed}: {figures}", flush=True)
    if out == RESULTS:
        PAGE.write_text(page(there), "utf-8")
    else:
        print(page(there))


WORDS = """# What each method does against its control

Written by `make recipes` from the raw figures in `benchmarks/results/recipes/`. A row is a method beside its control on
one budget: the means over seeds, by how much the method is better, and the 95 % interval over seeds (Student's t).
*Helps* is said where the interval lies above 0, *does not help* where it lies below, *no gain* where it holds 0.

- **Trials** call the shipped method in a small world whose truth is known, drawn anew for every seed. They say that a
  mechanism works where its assumption holds, and not how much it brings on your data.
- **Graphs** (percent right: `recipes/answers.yaml`, `prompts.yaml`, `imitation.yaml`, the rounds of `rounds.yaml`,
  `self_imitation.yaml`, `bandit.yaml` and `refresh.yaml`, and `conformance.yaml` for the survey's six ways) train the
  embedded base on what a selection keeps, and ask it unseen tasks; so do `objectives.yaml` and `across_tokenizers.yaml`
  by what it learns from that. `active.yaml`, `features.yaml` and `efficient.yaml` are of words' classes. Every seed
  draws prompts, answers, selections, training and tasks anew; teacher and base are one draw each, and tiny. Rows,
  budget and learning rate were chosen by what the control gains over the base. Those of pictures
  (`pictures_*.yaml`) draw and train the teacher anew, too, and ask about a thousand unseen pictures of 12 x 12;
  `masked.yaml`, `dna.yaml` and `supernet.yaml` train encoders without classes, which then name unseen pictures or
  sequences.
- **Graphs** of other things (`recipes/graphs.yaml`, `points.yaml`, `clouds.yaml`, `scans.yaml`) draw all but the
  weights that models begin with anew. The sliced Wasserstein distance is in the units of the points; less is better.
- Parameters were chosen on seeds 1 and 2, which are not told, or not at all. What has no gain keeps its row.
- What trains, rather than selects, is held against its controls in [the benchmarks](../benchmarks/README.md#proofs).

{table}
"""

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
