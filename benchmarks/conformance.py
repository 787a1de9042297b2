"""Every cell of the survey of Xu et al. 2024 once (`recipes/conformance.yaml`), and what its report says of each.

    make conformance                                      # three minutes of one core, and docs/conformance.md
    PYTHONPATH=. python benchmarks/conformance.py --out /tmp/try.json      # to try something

The recipe runs whole, in a folder of its own; the figures are those of the page that it ends in.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import chdir
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from benchmarks.made_by import made_by
from pipeline import contracts
from pipeline.core.driver import run_instance
from pipeline.core.graph import upstream
from pipeline.core.settings import limit_threads
from pipeline.plan import disk
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.report import arms, curves
from pipeline.report.claims import weighed
from pipeline.report.elicited import elicited
from pipeline.report.results import Answered, judge
from pipeline.report.tables import Tables
from pipeline.tables.parquet import Scan, walk

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "conformance.yaml"
RESULT = ROOT / "benchmarks" / "results" / "conformance.json"
PAGE = ROOT / "docs" / "conformance.md"
# The survey's families of objectives, by the file of `pipeline/objectives/`.
FAMILIES = {
    "supervised": "fine-tuning",
    "divergence": "divergence and similarity",
    "policy": "reinforcement learning",
    "preference": "rank optimisation",
}


def ran(folder: Path) -> dict[str, Any]:
    """Run the recipe in this folder, to its report; returns what that says of every label."""
    data, params = folder / "data", load(RECIPE) | {"run": {"executor": "inline"}}
    shutil.copytree(ROOT / "data/embedded", data / "embedded")
    for file, name in ((ROOT / "dvc.yaml", "dvc.yaml"), (RECIPE, "params.yaml")):
        shutil.copyfile(file, folder / name)
    with chdir(folder):
        plan = resolve(params)
        disk.write(plan, data)
        limit_threads(1)
        for label in TopologicalSorter(upstream(plan)).static_order():
            run_instance(plan.instances[label], plan.settings, data, folder)
        return told(data, plan.instances["report@report"].params.seed)


def told(data: Path, seed: int) -> dict[str, Any]:
    """Every label with its counts and its students, as the report has them."""
    lineage = arms.read(data)
    folders = sorted({file.parent for file in walk(data) if file.suffix == ".parquet"})
    named = ((contracts.TABLES.get(folder.relative_to(data).parts[0]), folder) for folder in folders)
    scans = [Scan(table, (folder,)) for table, folder in named if table is not None]
    efforts = curves.effort(curves.curves(lineage, data / "models"))
    evals = Scan(contracts.EVALS, tuple(folder for folder in folders if folder.parent == data / "evals"))
    answers = judge(evals, lineage, seed, {}, lambda found: weighed(found, efforts)).answers

    def student(a: Answered) -> dict[str, Any]:
        name, control = (line.members[0].model for line in (a.comparison.first, a.comparison.second))
        low, value, high = (round(100 * end, 1) for end in (a.difference.low, a.difference.value, a.difference.high))
        spent = {"steps": efforts[name].steps, "tokens": efforts[name].tokens, "beside": efforts[control].tokens}
        return {
            "student": name, "control": control, "objective": " + ".join(lineage.arms[name].objectives), **spent,
            "better": value, "low": low, "high": high, "refused": a.refused,
        }  # fmt: skip

    counts = ("label", "prompts", "answers", "tokens", "kept", "precision")
    return {
        "labels": [
            {**{key: getattr(one, key) for key in counts}, "students": [student(a) for a in one.students]}
            for one in elicited(lineage, Tables.of(data, scans), data, answers)
        ]
    }


def page(found: Mapping[str, Any]) -> str:
    """`docs/conformance.md`."""
    labels = [
        "| label | prompts | answers | tokens | kept | right of these | students |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    rows = dict[tuple[int, str], str]()
    for one in found["labels"]:
        named = ", ".join(f"`{s['student']}`" for s in one["students"])
        cells = [one["label"], *(f"{one[key]:,}" for key in ("prompts", "answers", "tokens", "kept"))]
        labels.append(f"| {' | '.join(cells)} | {100 * one['precision']:.1f} % | {named} |")
        for s in one["students"]:
            family = s["objective"].partition(".")[0]
            points = f"{s['better']:+.1f} ({s['low']:+.1f} to {s['high']:+.1f})"
            cells = [FAMILIES[family], s["objective"], s["student"], f"{s['steps']} steps, {s['tokens']:,} tokens"]
            cells += [
                f"{s['control']}, {s['beside']:,} tokens",
                points,
                "no: another budget" if s["refused"] else "yes",
            ]
            rows[list(FAMILIES).index(family), s["student"]] = f"| {' | '.join(cells)} |"
    head = [
        "| family | objective | student | trained for | control | points better (95 %) | a claim |",
        "|---|---|---|---|---|---|---|",
    ]
    families = "\n".join([*head, *(rows[key] for key in sorted(rows))])
    how = f"{found['seconds']:.0f} seconds on {found['date']}, {found['machine']}, commit {found['commit']}"
    return WORDS.format(labels="\n".join(labels), families=families, how=how)


def main() -> None:
    """Run it, and write the result and the page."""
    from gateway import commit, machine

    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--out", type=Path, default=RESULT)
    out, began = top.parse_args().out.absolute(), time.time()
    with tempfile.TemporaryDirectory() as folder:
        found = ran(Path(folder))
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "commit": commit(),
        "seconds": round(time.time() - began, 1), "made_by": made_by(load(RECIPE)), **found,
    }  # fmt: skip
    out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if out == RESULT:
        PAGE.write_text(page(found), "utf-8")


WORDS = """# Every cell of the survey, once

Written by `make conformance`. Xu et al. 2024 (A Survey on Knowledge Distillation of Large Language Models, arXiv
2402.13116) tell six ways in which what a model knows is brought out of it, and four families of objectives to learn it
by. [recipes/conformance.yaml](../recipes/conformance.yaml) has each of them once, small: {how}.

```
stillhouse use conformance
dvc repro
```

The report's section *What was brought out of the models* shows these numbers for any run. It goes by the column
`elicitation` of `prompts`, which `derive` writes, and `elicitation:` of an entry of `ingest` whose prompts were made
elsewhere. An answer that a student gave itself is feedback where a student learns how good it is (`preference.*`,
`policy.*`), and self-knowledge where it is learnt as it stands.

{labels}

*Kept* are rows of selections, and of features the rows that the teacher's distribution was read for; *right of these*
is what the verifier says. Answers cost tokens here, and no money. Every student beside its random control, percent
right on about a thousand unseen tasks, one seed:

{families}

- `random` has any answers of the teacher, and `plain` any of the model's own that `self` goes on from.
- A policy gradient draws its own answers, so its budget is another than its control's, and the report claims nothing.
- One seed of trainings this small shows that every road is open, and not which is best: [methods.md](methods.md) does.
- What writes the tasks of the expansion is nobody (`fake.words`), which mixes those that it is shown; a procedure finds
  their results (`procedural.solved`). Your own model takes its place in `acquire`, and `written.prompts` or
  `written.tasks` that of the procedure ([deriving.md](deriving.md)).
"""

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
