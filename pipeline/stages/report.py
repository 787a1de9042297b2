"""Report: everything, for people.  Reads the tables of a run, writes reports.

`report.html` is one file that opens anywhere and loads nothing; `quality/` has copies of the pages that it links to, so
that the folder can be served or sent alone. `metrics.json` holds a flat row of numbers per
evaluation, `metrics/` the same as a file per model for `dvc metrics show`, `plots/` a table per model for `dvc plots
show`, and `dvc_plots.html` the frame of DVC's page of plots, with the scripts in it, so that the page opens offline.
The page tells how long the instances took by the records in `data/.runs`, which are outside the graph: it is made anew
where a plan or a table has changed, and not where an instance ran again and gave the same.
"""

from __future__ import annotations

import csv
import functools
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.contracts import DROPS, EVALS, EXAMPLES, GAPS, PROMPTS, RESPONSES, SCORES, SELECTIONS
from pipeline.core.run import How
from pipeline.core.stage import Input, StageParams, stage
from pipeline.report import arms, charts, facts, hacking, made, page, pareto, transparency
from pipeline.report import curves as learning
from pipeline.report.arms import Lineage
from pipeline.report.claims import lacks, weighed
from pipeline.report.clouds import clouds
from pipeline.report.elicited import elicited
from pipeline.report.page import Gaps
from pipeline.report.results import DIGITS, Results, judge
from pipeline.report.rounds import histories
from pipeline.report.tables import Tables
from pipeline.report.thumbnails import thumbnails
from pipeline.tables.parquet import Scan

# DVC puts the plots in place of {plot_divs}; a frame without its {scripts} loads none from elsewhere.
PLOTS_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Plots</title><script>{script}</script></head>
<body>
{plot_divs}
</body>
</html>
"""
READS = (PROMPTS, DROPS, RESPONSES, SCORES, GAPS, SELECTIONS, EXAMPLES, EVALS)


class Params(StageParams):
    seed: int

    def inputs(self) -> dict[str, Input]:
        tables = {table.name: Input(table.name, table, optional=True) for table in READS}
        return {**tables, "models": Input("models", optional=True), "quality": Input("quality", optional=True)}

    def output(self, instance: str) -> str:
        return "reports"


# Recorded, because the page tells how long the stages took; its metrics and plots are exact.
@stage(writes=None, by="tree", exactness="recorded", imports=("vl_convert",), finds=("verifier",))
def report(
    params: Params,
    prompts: Scan,
    drops: Scan,
    responses: Scan,
    scores: Scan,
    gaps: Scan,
    selections: Scan,
    examples: Scan,
    evals: Scan,
    models: Path | None,
    quality: Path | None,
    data: Path,
    out: Path,
    how: How,
) -> None:
    """The page, the metrics and the plots."""
    lineage = arms.read(data)
    scans = (prompts, drops, responses, scores, gaps, selections, examples, evals)
    with tempfile.TemporaryDirectory(dir=out) as spill:
        tables = Tables.of(data, scans, Path(spill), how.settings.query)
        curves = learning.curves(lineage, models)
        weigh = functools.partial(weighed, efforts=learning.effort(curves))
        results = judge(evals, lineage, params.seed, facts.held_out_nll(lineage, tables), weigh)
        about = made.made(lineage, data)
        found = page.Found(
            lineage=lineage,
            results=results,
            funnel=facts.funnel(lineage, tables, facts.set_aside(lineage, data)),
            reasons=[*facts.ingested(lineage, data), *facts.reasons(lineage, tables)],
            gaps=_gaps(lineage, tables),
            agreement=facts.agreement(lineage, tables),
            coverage=facts.coverage(tables),
            curves=curves,
            paid=facts.paid(lineage, tables),
            costs=facts.costs(lineage, data),
            checked=facts.checked(lineage, quality),
            made=about,
            hacking=hacking.watched(lineage, curves),
            pareto=pareto.points(lineage, tables),
            rounds=histories(lineage, results),
            disagreements=facts.disagreements(lineage, tables),
            clouds=clouds(lineage, tables),
            elicited=elicited(lineage, tables, data, results.answers),
            index=transparency.index(lineage, results, about),
            thumbnails=thumbnails(tables),
            lacks=lacks(lineage, [*(a.comparison for a in results.answers), *results.apart]),
            seed=params.seed,
        )
    _json(out / "metrics.json", results.metrics)
    (out / "metrics").mkdir()
    for model, numbers in results.metrics.items():
        _json(out / "metrics" / f"{model}.json", numbers)
    _plots(out / "plots", results, curves)
    (out / "dvc_plots.html").write_text(PLOTS_PAGE.replace("{script}", charts.plots_script(how.memo)), "utf-8")
    for check in found.checked:
        if check.docs is not None and check.page is not None:
            shutil.copytree(check.docs, (out / check.page).parent)
    (out / "report.html").write_text(page.render(found), "utf-8")


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _gaps(lineage: Lineage, tables: Tables) -> list[Gaps]:
    return [
        Gaps(
            plan["instance"],
            plan["params"]["teacher"],
            plan["params"]["student"],
            tables.scans[plan["output"]].pylist(),
        )
        for plan in lineage.of("gaps")
        if plan["output"] in tables.scans
    ]


def _plots(folder: Path, results: Results, curves: Sequence[learning.Curve]) -> None:
    """One file per model, so that `dvc plots diff` lays the same model of two revisions over each other."""
    for name in ("loss", "domains"):
        (folder / name).mkdir(parents=True)
    for curve in curves:
        keys = sorted({key for point in curve.points for key in point} - {"step"})
        lines = ([point["step"], *(point.get(key) for key in keys)] for point in curve.points)
        _csv(folder / "loss" / f"{curve.model}.csv", ["step", *keys], lines)
    for name, judged in results.judged.items():
        rows = ([domain, round(share, DIGITS)] for domain, share in judged.domains.items())
        _csv(folder / "domains" / f"{name}.csv", ["domain", "accuracy"], rows)


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
