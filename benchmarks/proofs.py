"""What each new method does against its control: recipes of three or five seeds, on a benchmark that tuning never saw.

    make proofs                # an hour on two cores
    PYTHONPATH=. python benchmarks/proofs.py --recipes dpo --seeds 101 102 --bench 107 --set train.dpo.epochs=2 \
        --out /tmp/try.json    # to try something

Each seed selects and trains anew, on the same answers; models, pools and benchmark are one draw each. A method and its
control of one seed have the same rows, but where the recipe says otherwise. Raw results are kept per seed and item; a
recipe that is run alone takes its own place among those that are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from default_effect import judged, run_all
from gateway import commit, machine
from made_by import made_by

from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.unroll import copies_of, unrolled
from pipeline.report.results import Judged
from pipeline.report.statistics import Interval, Verdict, ece, over_seeds, over_seeds_and_items, verdict
from pipeline.tables import ids

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "proofs.json"
SEEDS = (301, 302, 303)
BENCH = 20261130
# As many items as in the effect of the default run: a quarter of these rows.
BENCH_ROWS = 9600
SAID: Mapping[Verdict, str] = {
    "helps": "helps",
    "does not help": "does not help",
    "inconclusive": "inconclusive: no gain shown",
}


@dataclass(frozen=True)
class Proof:
    """A recipe: its pairs of method and control, and which trainings are repeated, from which entries on.

    Nothing was tuned on a recipe whose benchmark is its own (`drawn` is false).
    """

    pairs: Sequence[tuple[str, str]]
    trainings: Sequence[str] = ()
    first: str = "select"
    drawn: bool = True
    seeds: Sequence[int] = SEEDS


PROOFS = {
    "taid": Proof([("taid", "forward"), ("taid", "sft"), ("forward", "sft")]),
    "ps_kd": Proof([("ps_kd", "sft"), ("ps_kd", "smoothed")]),
    # Pairs are all that there are: nothing is drawn.
    "dpo": Proof([("dpo", "more"), ("dpo", "sft")], first="select.agreed"),
    "mutual": Proof([("mutual", "sft")]),
    "on_policy": Proof([("on_policy", "jsd"), ("on_policy", "sft")]),
    "classifier_text": Proof(
        [("kd", "sft"), ("hidden", "sft"), ("hidden", "kd")], ("sft", "kd", "hidden"), "select.some"
    ),
    "logits": Proof([("forward", "sft")], seeds=range(301, 306)),
    "real_small": Proof(
        [
            ("voted_sft", "random_sft"), ("voted_sft", "greedy_sft"), ("voted_sft", "smol"), ("greedy_sft", "smol"),
            ("random_sft", "smol"),
        ],
        drawn=False,
    ),
}  # fmt: skip


def seeded(recipe: str, seeds: Sequence[int], bench: int, changes: Sequence[str]) -> dict[str, Any]:
    """A recipe with its trainings, and the selections that they come from, once per seed, on another benchmark."""
    params = load(ROOT / "recipes" / f"{recipe}.yaml")
    params["run"] = {"executor": "inline"}
    if PROOFS[recipe].drawn:
        params["ingest"]["held_out"].update(seed=bench, rows=BENCH_ROWS)
    for change in changes:
        path, value = change.split("=", 1)
        *keys, last = path.split(".")
        place = params
        for key in keys:
            place = place[key]
        place[last] = yaml.safe_load(value)
    proof = PROOFS[recipe]
    return unrolled(params, copies_of(params, seeds, proof.trainings, proof.first, ROOT))


def run(recipe: str, params: Mapping[str, Any], workers: int) -> tuple[Mapping[str, Judged], dict[str, int]]:
    """Run a recipe in this folder; returns its lines, and how many steps each student made."""
    data = Path("data")
    for made in data.glob("[a-z]*"):
        if made.name != "embedded":
            shutil.rmtree(made)
    Path("params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False), "utf-8")
    resolve(load(Path("params.yaml")))
    subprocess.run([sys.executable, "-m", "pipeline", "plan"], check=True)
    run_all(workers)
    curves = sorted(data.glob("models/*/training.jsonl"))
    return judged(Path()).judged, {f.parent.name: len(f.read_text("utf-8").splitlines()) for f in curves}


def row(recipe: str, first: str, second: str, lines: Mapping[str, Judged]) -> dict[str, object]:
    """A method beside its control."""
    one, two = lines[first], lines[second]
    assert np.array_equal(one.items, two.items)
    differences = one.right - two.right
    over = over_seeds(differences)
    both = over_seeds_and_items(differences, ids.seed_of(0, "proofs", recipe, first, second))
    return {
        "recipe": recipe,
        "method": first,
        "control": second,
        "accuracy": _points(one.accuracy.value),
        "control's": _points(two.accuracy.value),
        "difference": f"{100 * both.value:+.1f}",
        "95 % t over seeds": _ends(over),
        "95 % bootstrap, seeds x items": _ends(both),
        "verdict": SAID[verdict(over, both)],
    }


def _points(share: float) -> float:
    return round(100 * share, 1)


def _ends(interval: Interval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def kept(lines: Mapping[str, Judged], steps: Mapping[str, int], seeds: Sequence[int]) -> dict[str, Any]:
    """The raw results of a recipe: per line what was right, by seed and item."""
    some = next(iter(lines.values()))
    return {
        "items": some.items.tolist(),
        "domains": [some.names[i] for i in some.of_domain],
        "lines": {
            name: {
                "accuracy": _points(line.accuracy.value),
                "ece": round(ece(line.bins), 4),
                "steps": next((steps[m] for m in (name, f"{name}_s{seeds[0]}") if m in steps), 0),
                "by_domain": {domain: _points(share) for domain, share in line.domains.items()},
                "right": ["".join(map(str, r.astype(int))) for r in line.right],
            }
            for name, line in lines.items()
        },
    }


def note(recipe: str, found: Mapping[str, Any]) -> str:
    """A recipe's lines in a sentence."""
    said = [
        f"{name} {line['accuracy']:g} (ECE {line['ece']:.3f}" + (f", {line['steps']} steps)" if line["steps"] else ")")
        for name, line in sorted(found["lines"].items(), key=lambda pair: -pair[1]["accuracy"])
    ]
    made = f"{len(found['seeds'])} seeds, commit {found['commit']}, {found['minutes']} minutes"
    return f"`recipes/{recipe}.yaml`, {len(found['items']):,} items, {made}: {', '.join(said)}."


def page(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """The result as `benchmarks/tables.py` reads it."""
    ordered = {name: recipes[name] for name in PROOFS if name in recipes}
    return {
        "date": max(found["date"] for found in ordered.values()),
        "machine": machine(),
        "commit": commit(),
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in ("torch", "transformers")}},
        "rounds": max(len(found["seeds"]) for found in ordered.values()),
        "unit": "seeds",
        "rows": [made for found in ordered.values() for made in found["rows"]],
        "goals": [],
        "notes": [*NOTES, *(note(name, found) for name, found in ordered.items())],
        "recipes": ordered,
    }


def main() -> None:
    """Run the recipes and write the result."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--recipes", nargs="+", choices=list(PROOFS), default=list(PROOFS))
    top.add_argument("--seeds", type=int, nargs="+", help="others than those that are told")
    top.add_argument("--bench", type=int, default=BENCH, help="seed of the benchmark's tasks")
    top.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="change a recipe's parameter")
    top.add_argument("--out", type=Path, default=RESULT, help="where recipes that are not run keep their results")
    top.add_argument("--folder", type=Path, help="work here and keep it: later runs find answers in its memo")
    top.add_argument("--workers", type=int, default=2)
    given = top.parse_args()
    out, started = given.out.absolute(), time.time()
    recipes: dict[str, Any] = json.loads(out.read_text("utf-8"))["recipes"] if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("pipeline", "data/embedded"):
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
        os.chdir(folder)
        for recipe in given.recipes:
            began, seeds = time.time(), sorted(set(given.seeds or PROOFS[recipe].seeds))
            by = made_by(load(ROOT / "recipes" / f"{recipe}.yaml"))
            params = seeded(recipe, seeds, given.bench, given.set)
            lines, steps = run(recipe, params, given.workers)
            recipes[recipe] = {
                "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(), "made_by": by,
                "seeds": seeds, "bench": given.bench, "changed": given.set,
                "minutes": round((time.time() - began) / 60, 1),
                "rows": [row(recipe, *pair, lines) for pair in PROOFS[recipe].pairs],
                **kept(lines, steps, seeds),
            }  # fmt: skip
            print(note(recipe, recipes[recipe]), flush=True)
            # After each, so that one that fails costs none of those before it.
            out.write_text(json.dumps(page(recipes), indent=1) + "\n", "utf-8")
        os.chdir(ROOT)
    for recipe in given.recipes:
        for made in recipes[recipe]["rows"]:
            print(*made.values(), sep=" | ")
    print(f"raw results: {out}, {(time.time() - started) / 60:.1f} minutes")


NOTES = ("Accuracy in per cent, differences in points.",)

if __name__ == "__main__":
    main()
