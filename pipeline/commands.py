"""The commands that people call. Each prints what it finds; a mistake of the user is a `Refused`.

Everything heavy is imported inside the command that needs it, because `plan` and every stage start through here. All
text passes `show`, so that nothing a model wrote can command the terminal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import Refused, printable

ROOT = Path()
DATA = ROOT / "data"
PARAMS = ROOT / "params.yaml"
WIDEST = 60


def show(lines: Iterable[str]) -> None:
    """Print lines, without what a terminal would obey."""
    for line in lines:
        print(printable(line))


def show_json(content: object) -> None:
    """Print JSON in ASCII: control characters are escaped, and nothing is lost."""
    print(json.dumps(content, indent=1, default=str).replace("\x7f", "\\u007f"))


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as aligned lines; numbers to the right, long texts cut."""
    listed = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in listed]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    right = [bool(listed) and all(isinstance(v, int | float | None) for v in c) for c in zip(*listed, strict=True)]
    right = right or [False] * len(names)

    def line(row: Sequence[str]) -> str:
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(aligned).rstrip()

    return [line(names), line(["-" * w for w in widths]), *map(line, cells)]


def _cell(value: object) -> str:
    if value is None:
        return "null"
    text = printable(f"{value:.6g}" if isinstance(value, float) else str(value)).replace("\n", "\\n").replace("\t", " ")
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def status(as_json: bool) -> None:
    """What `dvc repro` would run now, and why."""
    from pipeline import plan
    from pipeline.status import standings

    given = plan.load(PARAMS)
    found = standings(given, plan.resolve(given), ROOT)
    if as_json:
        show_json({s.label: {"state": s.state, "why": s.why} for s in found if s.state != "clean"})
        return
    said = {
        "must": "must run: {}",
        "may": "may run, if the bytes differ of what it reads from {}",
        "missing": "runs not: dvc takes {} from its cache",
    }
    open_ = [s for s in found if s.state != "clean"]
    width = max((len(s.label) for s in open_), default=0)
    show(f"{s.label:<{width}}  {said[s.state].format(_some(s.why))}" for s in open_)
    show([f"{len(found) - len(open_)} of {len(found)} instances are up to date"])


def _some(words: Sequence[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def lineage(id: str, as_json: bool) -> None:
    """From a model back to its prompts, or from one row to the models that it taught."""
    from pipeline import lineage

    found = lineage.find(DATA, id)
    if as_json:
        show_json(found if isinstance(found, dict) else [asdict(node) for node in found])
    else:
        show(lineage.story(found) if isinstance(found, dict) else lineage.tree(found))


def query(sql: str | None, as_json: bool) -> None:
    """What one SELECT says about the tables; without one, the views it may read."""
    from pipeline.memo import Memo
    from pipeline.sql import MACROS, PENDING, VIEWS
    from pipeline.sql import query as ask

    if sql is None:
        show(line for name, about in VIEWS.items() for line in _view(name, about))
        show(["pending: answers that a running stage has received; in no table yet"])
        show(f"  {column}" for column in [*PENDING.names, ""])
        show(["every view of a table has two more columns: instance, of (the folder it lies in)", "", "macros"])
        show(f"  {macro}" for macro in MACROS)
        return
    # The memo is read only where it is asked about: it may be large.
    answers = Memo(_memo_folder()).table(PENDING) if "pending" in sql.lower() else None
    found = ask(DATA, sql, answers)
    if as_json:
        show_json(found.to_pylist())
        return
    show(table(found.column_names, zip(*(column.to_pylist() for column in found.columns), strict=True)))
    show([f"({found.num_rows} rows)"])


def _view(name: str, about: str) -> list[str]:
    from pipeline.contracts import TABLES

    columns = TABLES[name].columns if name in TABLES else {}
    width = max(map(len, columns), default=0)
    return [f"{name}: {about}", *(f"  {column:<{width}}  {c.about}" for column, c in columns.items()), ""]


def results() -> None:
    """The result of the last run, and where its time went."""
    from pipeline import report_facts, report_lineage
    from pipeline.report_results import result_table

    if not (DATA / "reports" / "metrics.json").exists():
        raise Refused(f"{DATA}/reports holds no metrics.json; `dvc repro` makes it")
    show(result_table(DATA).split("\n"))
    costs = report_facts.costs(report_lineage.read(DATA), DATA)
    if costs:
        longest = sorted(costs, key=lambda cost: -cost.wall_s)[:5]
        total, cpu = sum(cost.wall_s for cost in costs), sum(cost.cpu_s for cost in costs)
        show([f"time: {total:.0f} s in {len(costs)} instances ({cpu:.0f} s of CPU), the longest of them"])
        show(f"  {cost.wall_s:>7.1f} s  {cost.stage}@{cost.instance}" for cost in longest)


def methods(kind: str | None, markdown: bool) -> None:
    """Every method that `use:` may name, from its docstring."""
    from pipeline.plugins import KINDS, available, find

    for one in [kind] if kind else KINDS:
        rows = [(name, *_summary(find(one, name).about)) for name in available(one)]
        if markdown:
            show([f"**{KINDS[one]}**", "", "| method | what it computes | paper |", "|---|---|---|"])
            show(f"| `{name}` | {_escaped(about)} | {_escaped(paper)} |" for name, about, paper in rows)
        else:
            width = max((len(name) for name, *_ in rows), default=0)
            show([KINDS[one]])
            show(f"  {n:<{width}}  {about}" + ("" if p == "none" else f" [{p}]") for n, about, p in rows)
        show([""])


def _summary(about: str) -> tuple[str, str]:
    """The first sentence of a docstring, and whose the method is."""
    first = " ".join(about.split("\n\n")[0].split())
    paper = re.search(r"^Paper:(.*?)(?=^Differs:|\Z)", about, re.DOTALL | re.MULTILINE)
    return re.split(r"(?<=\.)\s", first)[0], " ".join(paper[1].split()).rstrip(".") if paper else "none"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def doctor(offline: bool) -> None:
    """What would stop a run, found before it starts."""
    from pipeline import plan, preflight

    checks = preflight.doctor(plan.resolve(plan.load(PARAMS)), DATA, _memo_root(), offline)
    width = max(len(check.name) for check in checks)
    show(f"{check.state:<4}  {check.name:<{width}}  {check.text}" for check in checks)
    failed = [check.name for check in checks if check.state == "fail"]
    if failed:
        raise Refused(f"a run would stop; mend {', '.join(failed)}")


def ask(model: str, question: str, max_tokens: int) -> None:
    """One model's answer to one question."""
    from pipeline import plan, preflight
    from pipeline.execution import How

    resolved = plan.resolve(plan.load(PARAMS))
    models = sorted(i.name for i in resolved.instances.values() if i.output == f"models/{i.name}")
    if model not in models:
        raise Refused(f"params.yaml has no model {model!r}; there are {', '.join(models)}")
    how = How(resolved.settings, _memo_root(), f"ask@{model}")
    show([preflight.ask(DATA / "models" / model, question, how, max_tokens)])


def _memo_root() -> Path:
    """Where the memo lies: a temporary experiment shares the one of its workspace."""
    return Path(os.environ.get("DVC_ROOT", ROOT))


def _memo_folder() -> Path:
    return _memo_root() / "data" / ".memo"


def preview(entry: str | None, rows: int, plain: bool, full: bool) -> None:
    """A few prompts end to end on the screen, before anything big runs."""
    from pipeline import plan, preview_screen
    from pipeline import preview as previews
    from pipeline.execution import limit_threads

    resolved = plan.resolve(plan.load(PARAMS))
    limit_threads(resolved.settings.threads)
    chosen = previews.entry_named(resolved, "generate", entry)
    previews.bring_up_to_date(previews.before_preview(resolved, chosen, DATA), ROOT)
    shown = previews.preview(resolved, chosen, DATA, _memo_root(), rows)
    preview_screen.render(shown, preview_screen.console(plain), full)
    if all(row.samples[0]["error"] is not None for row in shown.rows):
        raise Refused(f"no request of generate.{chosen.name} was answered; `stillhouse doctor` says more")


def estimate(entries: list[str], rows: int, as_json: bool) -> None:
    """The tokens, money and hours that asking will take, from a probe."""
    from pipeline import estimate as estimates
    from pipeline import plan, preview
    from pipeline.execution import limit_threads

    resolved = plan.resolve(plan.load(PARAMS))
    limit_threads(resolved.settings.threads)
    chosen = estimates.chosen(resolved, entries)
    able, waiting = estimates.ready(resolved, chosen, DATA)
    if entries and waiting:
        raise Refused(next(iter(waiting.values())))
    preview.bring_up_to_date(list(dict.fromkeys(label for labels in able.values() for label in labels)), ROOT)
    found = estimates.estimate(resolved, [e for e in chosen if e.label in able], DATA, _memo_root(), rows)
    if as_json:
        show_json({**asdict(found), "not_estimated": waiting})
    else:
        show([*estimates.lines(found), *(f"not estimated: {why}" for why in waiting.values())])


def use(recipe: Path, force: bool) -> None:
    """Put a complete params file in place of params.yaml."""
    from pipeline import plan

    if not recipe.is_file():
        there = ", ".join(str(p) for p in sorted((ROOT / "recipes").glob("*.yaml"))) or "none"
        raise Refused(f"there is no file {recipe}; the recipes are {there}")
    try:
        resolved = plan.resolve(plan.load(recipe))
    except plan.PlanError as error:
        raise plan.PlanError(error.faults, str(recipe)) from error
    new = recipe.read_bytes()
    if PARAMS.exists() and PARAMS.read_bytes() != new and not force and not _committed(PARAMS):
        raise Refused(f"{PARAMS} has changes that git does not hold; commit them, or add --force to lose them")
    fresh = PARAMS.with_suffix(".new")
    fresh.write_bytes(new)
    fresh.replace(PARAMS)
    show([f"{PARAMS} is now {recipe}: {len(resolved.instances)} instances. `stillhouse status` says what will run"])


def _committed(file: Path) -> bool:
    """Whether git holds this file as it is; without git nothing is held."""
    command = ["git", "status", "--porcelain", "--ignored", "--", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and not done.stdout.strip()


def memo(action: str, days: float) -> None:
    """What the memo of requests holds; forget old answers; learn the recorded ones."""
    from pipeline.memo import Memo
    from pipeline.spending import spent_by_endpoint

    kept = Memo(_memo_folder())
    if action == "prune":
        show([f"{kept.prune(days)} answers and readings older than {days:g} days are forgotten"])
    if action == "fill":
        files = sorted((DATA / "responses").rglob("part-*.parquet"))
        show([f"{kept.fill(files)} answers learnt from {len(files)} files of responses"])
    stats = kept.stats()
    show([f"{kept.path}: {stats.answers} answers, {stats.readings} readings, {stats.bytes / 1e6:.1f} MB"])
    if stats.oldest is not None:
        show([f"put between {_when(stats.oldest)} and {_when(stats.newest)}"])
    spent = spent_by_endpoint(kept.path.parent)
    if spent:
        show(["", "asked through this memo, pruned answers included; the caps of run.endpoints count this"])
        show(table(("endpoint", "tokens", "US dollars"), ((n, s.tokens, s.cost_usd) for n, s in spent.items())))


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def tidy(orphans: bool) -> None:
    """Forget, in dvc.lock, instances that no longer exist, and what killed DVC processes left locked."""
    from pipeline import plan
    from pipeline.status import entries
    from pipeline.tidy import forget, orphaned

    given = plan.load(PARAMS)
    plan.resolve(given)
    show([f"dvc.lock: {', '.join(forget(ROOT, entries(given, ROOT))) or 'nothing'} removed"])
    place = DATA / ".orphans"
    if place.is_dir():
        size = f"{place}: {orphaned(place) / 1e6:.1f} MB"
        if orphans:
            shutil.rmtree(place)
        show([f"{size} {'removed' if orphans else 'of tables that nobody owns; --orphans removes them'}"])
