"""Preview: a few prompts of an entry of `generate`, carried end to end before anything big runs.

The real stages run on a pool of N prompts in a scratch folder: `generate`, `score`, the rules of `select`, and the
rendering of `pack`. Answers go through the memo, so the run does not ask for them again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.asking.ask import known
from pipeline.commands import preview_screen, preview_training
from pipeline.commands.entries import asked_at_once, bring_up_to_date, entry_named, needed, pool_asked, spread
from pipeline.commands.preview_form import Form
from pipeline.commands.preview_screen import Preview, Row, Trained
from pipeline.commands.screen import at_least_one
from pipeline.contracts import DROPS, PROMPTS, RESPONSES, SCORES
from pipeline.core.run import How
from pipeline.core.settings import limit_threads
from pipeline.core.stage import Instance, Plan
from pipeline.core.workspace import DATA, PARAMS, ROOT, memo_root
from pipeline.errors import Refused
from pipeline.kinds.verifier import metric_of
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.stages.generate import Params as GenerateParams
from pipeline.stages.generate import generate, requests_of
from pipeline.stages.pack import Params as PackParams
from pipeline.stages.score import score
from pipeline.stages.select import Params as SelectParams
from pipeline.tables import parquet
from pipeline.tables.parquet import Scan
from pipeline.tables.rules import columns
from pipeline.training.recipe import TRAINING

ABOUT = "a few prompts end to end on the screen, or what a training is about to do: tokens, domains, how terms pull"
MORE = "What it asks is kept in the memo, so the run does not ask it again; what the entry reads is made first."


def pack_of(plan: Plan, entry: Instance) -> Instance | None:
    """The first entry of `pack` that trains on an entry's answers."""
    for pack in plan.of("pack"):
        chosen = _selection(plan, pack).entries
        if entry.output in pack.inputs["responses"] and entry.name in (chosen or (entry.name,)):
            return pack
    return None


def _packing(pack: Instance) -> PackParams:
    assert isinstance(pack.params, PackParams)
    return pack.params


def _selection(plan: Plan, pack: Instance) -> SelectParams:
    [folder] = pack.inputs["selection"]
    params = next(i.params for i in plan.of("select") if i.output == folder)
    assert isinstance(params, SelectParams)
    return params


def before_preview(plan: Plan, entry: Instance, data: Path) -> list[str]:
    """What must be up to date for a preview: what the entry reads, and the student, if no training makes it."""
    pack = pack_of(plan, entry)
    students = [] if pack is None else [f"{stage}@{_packing(pack).student}" for stage in ("acquire", "build")]
    return [*needed(plan, entry.label, data), *(label for label in students if label in plan.instances)]


def preview(plan: Plan, entry: Instance, data: Path, root: Path, rows: int) -> Preview:
    """Ask N prompts of an entry and carry the answers through to the tokens that would be trained on."""
    params = entry.params
    assert isinstance(params, GenerateParams)
    pool = pool_asked(entry, data)
    chosen = spread(pool, rows)
    how = How(asked_at_once(plan.settings), root, f"preview@{entry.name}")
    model = data / entry.inputs["model"][0]
    from_memo = _in_memo(chosen, params, model, how)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        responses = _ask_samples(entry, params, chosen, model, how, scratch)
        scores = _scores(plan, entry, responses, data, scratch)
        pack = pack_of(plan, entry)
        outside = _outside(plan, pack, responses, scores, scratch) if pack else {}
    answers = responses.to_pylist()
    by_prompt: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for answer in sorted(answers, key=lambda a: a["sample"]):
        by_prompt[answer["prompt_id"]].append(answer)
    render = _Rendering(pack, data)
    shown = []
    for prompt_id in chosen["prompt_id"].to_pylist():
        samples = by_prompt[prompt_id]
        first = samples[0]
        why = None if pack is None else outside[first["response_id"]]
        shown.append(
            Row(
                samples=tuple(samples),
                from_memo=from_memo[prompt_id],
                right=tuple(map(_right, samples)),
                scores={name: column[first["response_id"]] for name, (column, _) in scores.items()},
                trained=why or render.trained(first),
            )
        )
    return Preview(
        entry=entry.name,
        model=params.model,
        prompts=pool.num_rows,
        k=params.k,
        rows=tuple(shown),
        student=None if pack is None else _packing(pack).student,
    )


def _in_memo(pool: pa.Table, params: GenerateParams, model: Path, how: How) -> Counter[str]:
    """How many answers to each prompt the memo holds."""
    requests = requests_of(params, pool, model)
    found = known(requests, params.sampling(), how)
    return Counter(request.prompt_id for request in requests if request.request_id in found)


def _ask_samples(
    entry: Instance, params: GenerateParams, pool: pa.Table, model: Path, how: How, scratch: Path
) -> pa.Table:
    """The stage `generate` on a pool of these prompts; a failure is shown and no reason to stop."""
    parquet.write(PROMPTS, scratch / "prompts", 1, pool.to_batches())
    parquet.write(DROPS, scratch / "drops", 1, [])
    # The domains were chosen before; a small pool may lack some of them.
    params = params.model_copy(update={"max_failure_rate": 1.0, "domains": None})
    prompts, drops = Scan(PROMPTS, (scratch / "prompts",)), Scan(DROPS, (scratch / "drops",))
    batches = generate.function(params, prompts, drops, model, how, entry.name)
    parquet.write(RESPONSES, scratch / entry.output, 1, batches)
    return Scan(RESPONSES, (scratch / entry.output,)).read()


Scored = tuple[dict[str, float | str | None], Path | None]


def _scores(plan: Plan, entry: Instance, responses: pa.Table, data: Path, scratch: Path) -> dict[str, Scored]:
    """Name of a `score` entry -> its number for every answer, and the table of it; a text where it cannot be made."""
    found: dict[str, Scored] = {}
    for instance in plan.of("score"):
        if entry.output not in instance.inputs["responses"]:
            continue
        folder = scratch / instance.output
        try:
            answers = Scan(RESPONSES, (scratch / entry.output,))
            batches = list(score.function(instance.params, answers, data, scratch))
        except Refused as error:
            found[instance.name] = dict.fromkeys(responses["response_id"].to_pylist(), f"not made: {error}"), None
            continue
        parquet.write(SCORES, folder, 1, batches)
        rows = Scan(SCORES, (folder,)).read(["response_id", "score"])
        found[instance.name] = dict(zip(*(c.to_pylist() for c in rows.columns), strict=True)), folder
    return found


def _outside(
    plan: Plan, pack: Instance, responses: pa.Table, scores: dict[str, Scored], scratch: Path
) -> dict[str, str | None]:
    """Why the selection leaves an answer out, before any choice among answers; None where it does not."""
    rules, name = _selection(plan, pack), f"select.{_packing(pack).by}"
    where = _where(plan, rules, responses, scores, scratch)

    def why(row: dict[str, Any]) -> str | None:
        if row["error"] is not None or row["content"] is None:
            return f"the request failed: {row['error']}"
        if row["finish_reason"] == "length" and not rules.allow_truncated:
            return f"it was cut off (finish length), and {name} takes such answers only with allow_truncated"
        if row["finish_reason"] not in ("stop", "length"):
            return f"its finish is {row['finish_reason']}"
        if where.get(row["response_id"]) is False:
            return f"{name} wants `{rules.where}`"
        return None

    listed = responses.select(["response_id", "error", "content", "finish_reason"]).to_pylist()
    return {row["response_id"]: why(row) for row in listed}


def _where(
    plan: Plan, rules: SelectParams, responses: pa.Table, scores: dict[str, Scored], scratch: Path
) -> dict[str, bool]:
    """Whether the selection's `where` holds; empty where it speaks of scores that only the run makes."""
    files = {part.parent for part in (scratch / "responses").rglob("part-*.parquet")}
    scans = [Scan(RESPONSES, tuple(files)), *(Scan(SCORES, (f,)) for _, f in scores.values() if f is not None)]
    expressions = {"where": f"coalesce(({rules.where}\n), false)"}
    try:
        found = columns(scans, scratch, expressions, limits=plan.settings.query)
    except Refused:
        return {}
    return dict(zip(*(c.to_pylist() for c in found.select(["response_id", "where"]).columns), strict=True))


def _right(row: dict[str, Any]) -> bool | None:
    """Whether an answer is right; None where nothing can tell."""
    found = metric_of(row["verifier"], row["answer"], row["reference"])
    return None if found is None else found == 1


class _Rendering:
    """What `pack` would make of an answer, for the student that it is packed for."""

    def __init__(self, pack: Instance | None, data: Path) -> None:
        self.pack, self.form, self.why = pack, None, "no entry of pack reads these answers"
        if pack is None:
            return
        [folder] = pack.inputs["tokenizer"]
        if (data / folder).is_dir():
            self.form = Form(data / folder)
        else:
            self.why = f"data/{folder} is not made yet: its model is trained first"

    def trained(self, row: dict[str, Any]) -> Trained | str:
        """The example with what is trained on, or why there is none."""
        if self.form is None or self.pack is None:
            return self.why
        packing = _packing(self.pack)
        try:
            example, length = self.form.packed(packing, row)
        except Refused as error:
            return str(error)
        if length > packing.max_length:
            most = f"pack.{self.pack.name} refuses more than max_length {packing.max_length}"
            return f"the example has {length} tokens, and {most}"
        return example


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `preview`."""
    about = "an entry of generate (the first), or `train.<name>` or `distill.<name>`: what it would be trained on"
    command.add_argument("entry", nargs="?", help=about)
    command.add_argument("--rows", type=at_least_one, default=10, metavar="N", help="how many prompts or rows (10)")
    command.add_argument("--plain", action="store_true", help="no colours, as where the output is no terminal")
    command.add_argument("--full", action="store_true", help="cut no text")


def run(entry: str | None, rows: int, plain: bool, full: bool) -> None:
    """Show a few prompts end to end on the screen, before anything big runs."""
    plan = resolve(load(PARAMS))
    limit_threads(plan.settings.threads)
    # As a key of params.yaml, or as the label that other commands print.
    section, _, name = (entry or "").replace("@", ".").partition(".")
    if section in TRAINING:
        trained = entry_named(plan, section, name or None)
        bring_up_to_date(needed(plan, trained.label, DATA), ROOT)
        preview_training.run(trained, plan.settings, DATA, rows, preview_screen.console(plain), full)
        return
    chosen = entry_named(plan, "generate", name if section == "generate" else entry)
    bring_up_to_date(before_preview(plan, chosen, DATA), ROOT)
    shown = preview(plan, chosen, DATA, memo_root(), rows)
    preview_screen.render(shown, preview_screen.console(plain), full)
    if all(row.samples[0]["error"] is not None for row in shown.rows):
        raise Refused(f"no request of generate.{chosen.name} was answered; `stillhouse doctor` says more")
