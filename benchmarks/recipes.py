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
)
SEEDS = tuple(range(101, 109))
GRAPH_SEEDS = SEEDS[:3]
# How many of a recipe are told, where it is another number than 3.
ROUNDS = {"bandit": 8}
SAID: Mapping[Verdict, str] = {"helps": "helps", "inconclusive": "no gain", "does not help": "does not help"}

for group in GROUPS:
    importlib.import_module(f"benchmarks.trials.{group}")


@dataclass(frozen=True)
class Claim:
    """What is claimed of a student of a graph, beside another; both are named as their evaluations. Their metric is 0
    or 1 unless `measure` says another; `less` where a lower figure is the better one."""

    after: str
    method: str
    claim: str
    student: str
    beside: str
    control: str
    measure: str = "percent right"
    less: bool = False


def near(after: str, method: str, claim: str, student: str, beside: str, control: str) -> Claim:
    """A claim about clouds of points."""
    return Claim(after, method, claim, student, beside, control, "sliced Wasserstein", less=True)


ANY, RIGHT = "any answers, as many tokens", "right answers to any prompts, as many tokens"
KL, FULL = "objective divergence.forward", "a student as large as the teacher, the same rows, as many steps"
OWN = "any of its own answers, as many tokens"
SOFT, LABELS = "labels and the teacher's distribution", "the labels alone"
# A graph is `recipes/<name>.yaml`.
# fmt: off
GRAPHS = {
    "answers": (
        Claim("rejection sampling", "scorer verifier.correct", "Right answers teach more.",
              "verified", "random", ANY),
        Claim("Symbolic KD", "scorer critic.linear", "Answers that a critic believes, told of a tenth, teach more.",
              "critic", "random", ANY),
        Claim("NeuroComparatives", "scorer consistency.uncontradicted", "Answers that most siblings share teach more.",
              "vote", "random", ANY),
        Claim("LightGen", "selector sampling.random", "Many prompts with an answer each teach more than few with many.",
              "random", "repeated", "all answers to an eighth of the prompts, as many tokens"),
    ),
    "prompts": (
        Claim("DDK", "mixture weights.ddk", "Domains by their gap in perplexity teach more.",
              "ddk", "random", RIGHT),
        Claim("AlphaMed", "scorer passing.level", "What the student solves now and then (L2 to L5) teaches more.",
              "levels", "random", RIGHT),
        Claim("MiniPLM", "selector rank.miniplm", "What the teacher knows and the student does not teaches more.",
              "miniplm", "random", RIGHT),
        Claim("s1", "selector reasoning.s1", "Long answers to what the student does not solve teach more.",
              "s1", "random", RIGHT),
    ),
    "imitation": (
        Claim("I2D2", "scorer critic.linear", "Two rounds on own answers that a critic believes make a student better.",
              "two", "base", "the student before"),
        Claim("I2D2", "scorer critic.linear", "In two rounds, its own answers that a critic believes teach it more.",
              "two", "plain_two", OWN),
    ),
    "masked": (
        Claim("DMJD", "augmentation masks.disjoint", "Disjoint masks, and what is seen beside, make a better encoder.",
              "dmjd", "random", "two random masks, in as many steps"),
        Claim("self-distillation for further pre-training", "transform merge.taps",
              "Further pre-training beside what a model of it made of the pictures makes a better encoder.",
              "itself", "further", "further pre-training alone, from the same model"),
    ),
    "dna": (
        Claim("HAD", "network language.masked", "Hidden letters and a teacher's states make a better encoder.",
              "had", "mlm", "hidden letters alone"),
        Claim("HAD", "network language.masked", "Hidden letters and a teacher's states make a better encoder.",
              "had", "distil", "the teacher's states alone"),
    ),
    "rounds": (
        Claim("PGKD", "selector mixture.weighted", "Rounds that ask most where the student is behind teach more.",
              "led_3", "blind_3", "the same three rounds, an equal share for every domain"),
        Claim("PGKD", "selector mixture.weighted", "Three rounds teach more than one of the same budget.",
              "led_3", "once", "one round of three times the prompts and tokens"),
    ),
    "pictures_logits": (
        Claim("SSLD", "objective divergence.forward", "Of wrong labels and a teacher, it alone teaches more.",
              "label_free", "kd", SOFT),
        Claim("PLD", "objective ranking.pld", "The label first, then all classes in the teacher's order, teach more.",
              "pld", "kd", SOFT),
        Claim("PLD", "objective ranking.pld", "The same of a teacher at temperature 4.",
              "pld_4", "kd", SOFT),
        Claim("NKD", "objective divergence.nkd", "The other classes as a distribution of their own teach more.",
              "nkd", "kd", SOFT),
        Claim("TAID", "objective schedule.taid", "A target on its way to the teacher teaches more.",
              "taid", "label_free", "forward KL to the teacher at once"),
        Claim("TAID", "objective schedule.taid", "A target that moves by the loss teaches more.",
              "taid", "linear", "one that moves evenly"),
        Claim("BD-KD", "objective divergence.balanced", "Both KL, as each is needed, teach more.",
              "balanced", "forward", "forward KL"),
        Claim("BD-KD", "objective divergence.balanced", "Both KL, as each is needed, teach more.",
              "balanced", "reverse", "reverse KL"),
        Claim("mixup and KD", "augmentation mixing.mixup", "Of mixed pictures, a teacher teaches more.",
              "mixed", "kd", f"{SOFT}, no picture mixed"),
        Claim("mixup and KD", "objective divergence.standardised", "Logits over their deviation mend it.",
              "standardised_mixed", "mixed", f"{SOFT}, of as many mixed pictures"),
        Claim("mixup and KD", "objective divergence.standardised", "Without mixing, they teach more, too.",
              "standardised", "kd", SOFT),
        Claim("Even your teacher", "objective schedule.guidance", "Labels in the share that suits both teach more.",
              "guided", "even", "labels and teacher in equal parts"),
        Claim("PS-KD", "objective schedule.ps_kd", "Wrong labels and the last epoch's answers teach more.",
              "ps_kd", "labels", LABELS),
        Claim("PS-KD", "objective schedule.ps_kd", "Wrong labels and the last epoch's answers teach more.",
              "ps_kd", "smoothed", "smoothed labels"),
        Claim("USKD", "objective schedule.uskd", "A student's own soft labels teach more.",
              "uskd", "labels", LABELS),
    ),
    "pictures_features": (
        Claim("FitNets", "objective feature.hidden", "The teacher's state teaches beside its distribution.",
              "hidden", "kd", SOFT),
        Claim("TRG", "objective feature.trg", "How pictures of a long tail lie to each other teaches beside it.",
              "trg", "kd", SOFT),
        Claim("TRG", "objective feature.trg", "Neighbours teach more than the similarities of all.",
              "trg", "gram", "similarity-preserving distillation"),
        Claim("OFA-KD", "objective exits.ofa", "An exit that learns the distribution makes a better student.",
              "exit", "kd", SOFT),
        Claim("ND", "objective feature.nd", "A state that turns to the mean of its class makes a better student.",
              "nd", "kd", SOFT),
        Claim("ND", "objective feature.nd", "The same beside a student that learns the states.",
              "nd", "hidden", "labels, distribution and state"),
        Claim("ProC-KD", "transform prototypes.codebook", "Of other classes, prototypes of states teach more.",
              "others_prototype", "others_hidden", "its states, no prototypes"),
        Claim("ProC-KD", "transform prototypes.codebook", "Of other classes, a teacher's states teach beside labels.",
              "others_hidden", "others", LABELS),
    ),
    "pictures_heads": (
        Claim("LELP", "transform subclasses.lelp", "Five kinds of each of two classes teach more than the classes.",
              "lelp", "coarse_4", "the distribution over the classes at temperature 4"),
        Claim("LELP", "transform subclasses.lelp", "The same at temperature 1.",
              "lelp", "coarse", "the distribution over the classes"),
        Claim("MaKD", "transform aspects.grouped", "A teacher's answers to questions teach beside few labels.",
              "aspects", "labels", LABELS),
        Claim("MaKD", "transform aspects.grouped", "Questions that mean something teach more.",
              "aspects", "shuffled", "questions of as many classes that have nothing in common"),
    ),
    "pictures_few": (
        Claim("DHO", "builder heads.add", "With some ten labels, a head for each beats one for labels and teacher.",
              "dho_ten", "single_ten", "one head, the same two losses"),
        Claim("DHO", "builder heads.add", "With some ten labels, two heads beat the labels alone.",
              "dho_ten", "labels_ten", LABELS),
        Claim("DHO", "builder heads.add", "With some fifty labels, a head for each beats one for labels and teacher.",
              "dho_fifty", "single_fifty", "one head, the same two losses"),
        Claim("DHO", "builder heads.add", "With some fifty labels, two heads beat the labels alone.",
              "dho_fifty", "labels_fifty", LABELS),
        Claim("PCoreSet", "selector diversity.pcoreset", "Thirty labels far apart in probabilities teach more.",
              "pcoreset", "random", "thirty labels of any pictures"),
        Claim("PCoreSet", "selector diversity.pcoreset", "The same beside the least sure.",
              "pcoreset", "entropy", "thirty labels where the student is least sure"),
    ),
    "pictures_teachers": (
        Claim("DistillNearest", "selector teachers.task_similarity", "The teacher of the most alike task teaches more.",
              "nearest", "uniform", "all four teachers, each as much"),
        Claim("DistillWeighted", "selector teachers.task_similarity", "All, each by how alike its task is, teach more.",
              "weighted", "uniform", "all four teachers, each as much"),
        Claim("DistillNearest", "selector teachers.task_similarity", "An alike teacher teaches more than forty labels.",
              "nearest", "labels", LABELS),
        Claim("DistillNearest", "selector teachers.task_similarity", "The most alike teacher teaches more.",
              "nearest", "farthest", "the teacher of negatives"),
    ),
    "pictures_web": (
        Claim("KD3", "selector rank.top", "What teacher and student are surest of together teaches more.",
              "dynamic", "sure", "as many pictures that the teacher is surest of"),
        Claim("KD3", "selector rank.top", "Half of a pool from anywhere teaches more than the whole.",
              "dynamic", "whole", "all pictures, as many steps"),
    ),
    "pictures_moved": (
        Claim("HARD", "augmentation moves.led", "Moves on which the two differ teach more of moved ones.",
              "hard", "kd", "the pictures as they are"),
        Claim("HARD", "augmentation moves.led", "Led moves teach more than random ones.",
              "hard", "random", "random moves of the same range"),
        Claim("HARD", "augmentation moves.led", "On pictures that are not moved, a student loses nothing.",
              "hard_middle", "kd_middle", "the pictures as they are"),
    ),
    "active": (
        Claim("PCoreSet", "selector diversity.pcoreset",
              "In three rounds, labels asked for where a dual-head student's answers are spread teach more.",
              "active_3", "chance_3", "as many labels by chance, the same teacher"),
    ),
    "self_imitation": (
        Claim("I2D2", "scorer verifier.correct", "Three rounds on its own right answers make a student better.",
              "own_3", "base", "the student before"),
        Claim("I2D2", "scorer verifier.correct", "In three rounds, its own right answers teach it more than any.",
              "own_3", "any_3", OWN),
    ),
    "bandit": (
        Claim("KNEXA-FL", "mixture bandit.linucb", "A bandit over teachers and domains, in eight rounds, teaches more.",
              "led_8", "even_8", "eight rounds of both teachers and all domains alike, as many tokens"),
    ),
    "refresh": (
        Claim("Teacher hacking", "objective supervised.cross_entropy",
              "A teacher that is asked anew in every round teaches more.",
              "fresh_3", "fixed_3", "three rounds over what it said once, as many steps"),
    ),
    "efficient": (
        Claim("Efficient transformers", KL, "A student of a twelfth of the parameters is as good.",
              "small", "full", FULL),
        Claim("Efficient transformers", KL, "A student of a third of the parameters is as good.",
              "half", "full", FULL),
        Claim("Efficient transformers", KL, "A small student learns more from a distribution.",
              "small", "small_text", "the teacher's answers alone, as many steps"),
        Claim("Efficient transformers", "evaluator cost.latency", "A student of a twelfth of the parameters is faster.",
              "small_cost", "full_cost", FULL, "hundredths of a second an answer", True),
    ),
    "conformance": (
        Claim("survey: labeling", "scorer verifier.correct", "The teacher's right answers teach more.",
              "label", "random", ANY),
        Claim("survey: expansion", "operator expansion.instruct", "Right answers to written tasks teach more.",
              "expanded", "random", ANY),
        Claim("survey: curation", "source procedural.tasks", "Right answers to the weak kinds of tasks teach more.",
              "curated", "random", ANY),
        Claim("survey: features", KL, "The teacher's distribution on right answers teaches more.",
              "feature", "random", ANY),
        Claim("survey: feedback", "scorer verifier.correct", "Its own answers that a verifier finds right teach more.",
              "right", "random", ANY),
        Claim("survey: feedback", "objective preference.dpo", "Its own answers, right ones against wrong, teach more.",
              "preferred", "random", ANY),
        Claim("survey: feedback", "objective policy.group_relative", "Fifty steps on own answers' rewards teach more.",
              "bandit", "random", "any answers of the teacher, five times the tokens"),
        Claim("survey: self-knowledge", "scorer verifier.correct", "A round on its own right answers teaches more.",
              "self", "plain", OWN),
    ),
    "graphs": (
        Claim("GLNN", "objective divergence.forward", "An MLP learns of a graph from what a GCN says of its nodes.",
              "glnn", "mlp", "the classes alone"),
        Claim("FF-G2M", "objective links.high", "What a GCN says of neighbours, and how they differ, teaches an MLP.",
              "ffg2m", "mlp", "the classes alone"),
        Claim("FF-G2M", "objective links.high", "It teaches more than what the GCN says of the nodes by themselves.",
              "ffg2m", "glnn", "GLNN"),
        Claim("FF-G2M", "objective links.high", "How neighbours differ teaches beside what they have in common.",
              "ffg2m", "low", "the low frequencies alone"),
        Claim("FF-G2M", "objective links.low", "What they have in common teaches beside how they differ.",
              "ffg2m", "high", "the high frequencies alone"),
    ),
    "points": (
        near("SIM", "objective score.implicit", "A generator of one step is nearer than a teacher in four.",
             "sim", "four_steps", "the teacher in four steps"),
        near("SIM", "objective score.implicit", "It is nearer than its teacher in one step.",
             "sim", "one_step", "the teacher in one step"),
        near("SIM", "objective score.implicit", "The pseudo-Huber distance of scores is better than the squared one.",
             "sim", "squared", "the squared distance (SiD)"),
        near("SIM", "objective score.implicit", "It is nearer than one that learnt from stored pairs.",
             "sim", "regression", "regression on pairs of noise and what the teacher makes of it"),
        near("BOOT", "objective score.bootstrap", "A generator that learns its path is nearer than in one step.",
             "boot", "one_step", "the teacher in one step"),
        near("BOOT", "objective score.bootstrap", "It is nearer than its teacher in four steps.",
             "boot", "four_steps", "the teacher in four steps"),
        near("BOOT", "objective score.bootstrap", "It is nearer than one that learnt from stored pairs.",
             "boot", "regression", "regression on pairs of noise and what the teacher makes of it"),
        near("Distillation-DPO", "objective score.preference", "To prefer the nearer of two makes it nearer.",
             "preference", "distribution", "the same step without winners and losers"),
        near("DreamPolish", "objective score.domain", "Points as weights vary as true ones where a model follows them.",
             "polished", "sds", "score distillation (SDS), as many steps"),
    ),
    "clouds": (
        Claim("distillation with contrast", "objective contrast.copies", "Nameless clouds teach what a head needs.",
              "both_told", "told", "a head on the network as it began"),
        Claim("distillation with contrast", "objective contrast.copies", "Contrast teaches beside DINO.",
              "both_told", "dino_told", "DINO alone"),
        Claim("distillation with contrast", "objective contrast.dino", "DINO teaches beside contrast.",
              "both_told", "contrast_told", "contrast alone"),
    ),
}
# fmt: on


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
  embedded base on what a selection keeps, and ask it unseen tasks; `active.yaml` and `efficient.yaml` are of words'
  classes. Every seed draws prompts, answers, selections, training and tasks anew; teacher and base are one draw each,
  and tiny. Rows, budget and learning rate were chosen by what the control gains over the base. Those of pictures
  (`pictures_*.yaml`) draw and train the teacher anew, too, and ask about a thousand unseen pictures of 12 x 12;
  `masked.yaml` and `dna.yaml` train encoders without classes, which then name unseen pictures or sequences.
- **Graphs** of other things (`recipes/graphs.yaml`, `points.yaml`, `clouds.yaml`) draw all but the weights that models
  begin with anew. The sliced Wasserstein distance is in the units of the points, and less is better.
- Parameters were chosen on seeds 1 and 2, which are not told, or not at all. What has no gain keeps its row.
- What trains, rather than selects, is held against its controls in [the benchmarks](../benchmarks/README.md#proofs).

{table}
"""

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
