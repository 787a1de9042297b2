"""Transform: signals made of signals, by what a whole table says about a row.  Reads signals, prompts and responses,
writes signals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.contracts import PROMPTS, RESPONSES, SIGNALS
from pipeline.core.graph import taps_of
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import NAME, Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.transform import Signals, Transform
from pipeline.tables import manifest
from pipeline.tables.lists import inside, joined, lengths, nested, padded, values, whole
from pipeline.tables.parquet import Scan
from pipeline.tables.tensors import arrays, cell

# A tail that is rounding.
WHOLE = 1e-4


class Params(StageParams):
    of: str
    source: str = Field(alias="from", pattern=NAME)
    beside: str = Field(alias="with", pattern="^signals/[^/]+/[^/]+$")
    answers: str | None = Field(default=None, pattern="^responses/[^/]+(/[^/]+)?$")
    use: Use[Transform]
    seed: int

    def inputs(self) -> dict[str, Input]:
        missing = f"nothing reads these examples. Add an entry to probe, for example `teacher: {{of: {self.of}, ...}}`"
        asked = {}
        if self.answers is not None:
            pool, unasked = self.answers.split("/")[1], "nothing answers these prompts. Add an entry to generate"
            asked = {
                "prompts": Input(f"prompts/{pool}", PROMPTS),
                "answers": Input(self.answers, RESPONSES, missing=unasked),
            }
        return {
            "signals": Input(f"signals/{self.of}/{self.source}", SIGNALS, missing=missing),
            "beside": Input(self.beside, SIGNALS, missing=missing),
            **asked,
        }

    def output(self, instance: str) -> str:
        return f"signals/{self.of}/{instance}"

    def check(self, plan: Plan) -> list[str]:
        """Taps that are not there, another teacher's signals that are of other examples, or are no other's."""
        own, faults = f"signals/{self.of}/{self.source}", []
        wanted = self.use.arguments.get("tap")
        if wanted is not None and wanted not in taps_of(plan, own):
            faults.append(f"tap: {own} holds no tap {wanted!r}; let the probe that makes it say `taps: [{wanted}]`")
        if self.use.method.traits.get("aligned") and (
            self.beside == own or self.beside.rpartition("/")[0] != own.rpartition("/")[0]
        ):
            faults.append(f"with: {self.use.name} needs the signals of another teacher on examples/{self.of}")
        if bool(self.use.method.traits.get("asked")) != (self.answers is not None):
            needs = "needs answers to what was asked about the prompts, such as responses/aspects"
            faults.append(f"answers: {self.use.name} {'looks at none; leave it out' if self.answers else needs}")
        return faults


def sealed(params: Params, signals: Scan, beside: Scan, out: Path) -> None:
    """The manifest: the source's, with what is another now. Of two teachers' second readings it has the one that agrees
    less."""
    scans = (signals, beside) if params.use.method.traits.get("aligned") else (signals,)
    said = [found for scan in scans for folder in scan.folders if (found := manifest.read(folder)) is not None]
    heads = Scan(SIGNALS, (out,)).read(["example_id", "topk_ids"])
    if not len(heads) or len(said) < len(scans):
        return
    changed = {
        "teacher": "+".join(dict.fromkeys(one.teacher for one in said)),
        "examples": manifest.names_digest([heads["example_id"].combine_chunks()]),
        "rows": len(heads),
        "top_k": int(lengths(values(whole(heads, "topk_ids")))[0]),
        "store": "exact",
        "temperatures": (1.0,),
        "again": max((one.again for one in said if one.again), key=lambda again: again.distance, default=None),
    }
    said[0].model_copy(update=changed).write(out)


@stage(writes=SIGNALS, by="table", ends=sealed)
def transform(
    params: Params,
    signals: Scan,
    beside: Scan,
    name: str,
    how: How,
    prompts: Scan | None = None,
    answers: Scan | None = None,
) -> Iterator[pa.RecordBatch]:
    """The whole table is held in memory at once, as arrays."""
    rows = signals.read().sort_by("example_id")
    if not len(rows):
        return
    others = rows if beside.folders == signals.folders else beside.read().sort_by("example_id")
    if not len(others):
        raise Refused(f"transform.{name}.with: data/{params.beside} has no rows")
    traits = params.use.method.traits
    if traits.get("aligned") and not _same(rows, others):
        raise Refused(
            f"transform.{name}.with: data/{params.beside} is not of the same examples as the signals that it is to be "
            f"joined with, or at another temperature; probe the same table with both teachers"
        )
    given = signals_of(rows, f"signals/{params.of}/{params.source}")
    other = given if others is rows else signals_of(others, params.beside)
    if traits.get("labelled") and not (other.target_N >= 0).any():
        raise Refused(f"transform.{name}.with: no outcome is known in data/{params.beside}; name a table of labels")
    if not traits.get("topk", True) and max(given.tail_N.max(), other.tail_N.max()) > WHOLE:
        raise Refused(
            f"transform.{name}: {params.use.name} needs whole distributions, and some of their mass is not stored: let "
            f"the probe store as many outcomes as there are (`top_k`)"
        )
    if prompts is not None and answers is not None:
        given = replace(given, said_B=_said(rows["prompt_id"].to_pylist(), prompts, answers))
        if not any(given.said_B):
            raise Refused(
                f"transform.{name}.answers: data/{params.answers} answers no prompt that was made of one of "
                f"examples/{params.of}; derive its pool from the one that these answer"
            )
    made = params.use.build()(given, other, params.seed)
    how.say(f"{len(made.row_N)} places of {len(rows)} examples")
    yield _written(rows, made, _whose(rows, others if traits.get("aligned") else rows))


def _said(of: Sequence[str], prompts: Scan, answers: Scan) -> np.ndarray:
    """What was asked about each prompt, which is the last paragraph of one that was made of it, and the short answers
    to it."""
    made, said = defaultdict(list), defaultdict(list)
    for prompt in prompts.pylist(["prompt_id", "parent_ids", "messages"]):
        question = prompt["messages"][-1]["content"].rpartition("\n\n")[2]
        for parent in prompt["parent_ids"] or ():
            made[parent].append((question, prompt["prompt_id"]))
    for row in answers.pylist(["prompt_id", "answer"]):
        said[row["prompt_id"]].append(row["answer"])
    found = np.empty(len(of), object)
    found[:] = [{question: said[child] for question, child in made[name] if child in said} for name in of]
    return found


def signals_of(rows: pa.Table, of: str) -> Signals:
    """Rows of a table of signals as arrays; refuses what no array can hold."""
    tokens = whole(rows, "token_ids")
    sizes = lengths(tokens)
    width = int(sizes.max(initial=1))
    at_BT = inside(whole(rows, "spans"), width)
    outcomes, logprobs = (values(whole(rows, name)) for name in ("topk_ids", "topk_logprobs"))
    widths = np.unique(lengths(outcomes))
    if len(widths) > 1:
        raise Refused(f"data/{of} stores {', '.join(map(str, widths))} outcomes a place; probe all with one `top_k`")
    if len(set(rows["temperature"].to_pylist())) > 1:
        raise Refused(f"data/{of} was taken at several temperatures; probe all of it at one")
    shape = len(outcomes), int(widths[0])
    found = Signals(
        example_B=np.array(rows["example_id"].to_pylist()),
        weight_B=rows["weight"].to_numpy().astype(np.float32),
        row_N=np.repeat(np.arange(len(rows)), at_BT.sum(1)),
        target_N=padded(values(tokens).to_numpy(), sizes, width)[at_BT],
        ids_NK=values(outcomes).to_numpy().reshape(shape),
        logprobs_NK=values(logprobs).to_numpy(zero_copy_only=False).reshape(shape),
        tail_N=_reals(rows, "tail_mass"),
        target_logprob_N=_reals(rows, "target_logprob"),
        features=_features(rows),
    )
    bad = ~(np.isfinite(found.logprobs_NK).all(1) & np.isfinite(found.tail_N))
    if bad.any():
        example = found.example_B[found.row_N[int(bad.argmax())]]
        raise Refused(
            f"data/{of}: example {example} stores log-probabilities that are no numbers. Probe again (a teacher in "
            f"half precision may overflow), or take it out."
        )
    return found


def _features(rows: pa.Table) -> dict[str, np.ndarray]:
    taps = [arrays(cell or []) for cell in rows["features"].to_pylist()]
    return {name: np.concatenate([np.asarray(tap[name]) for tap in taps]) for name in taps[0]}


def _reals(rows: pa.Table, column: str) -> np.ndarray:
    return values(whole(rows, column)).to_numpy(zero_copy_only=False).astype(np.float32)


def _same(rows: pa.Table, others: pa.Table) -> bool:
    return all(rows[name].equals(others[name]) for name in ("example_id", "token_ids", "spans", "temperature"))


def _whose(rows: pa.Table, others: pa.Table) -> list[str]:
    """The identities of the teachers of every row."""
    pairs = zip(rows["teacher_id"].to_pylist(), others["teacher_id"].to_pylist(), strict=True)
    return ["+".join(dict.fromkeys(pair)) for pair in pairs]


def _written(rows: pa.Table, made: Signals, teachers: list[str]) -> pa.RecordBatch:
    """The rows with other signals."""
    cuts = np.searchsorted(made.row_N, np.arange(1, len(rows)))

    def parts(array: np.ndarray) -> list[np.ndarray]:
        return np.split(array, cuts)

    taps = {name: parts(value) for name, value in made.features.items()}
    columns: dict[str, Any] = {name: rows[name] for name in rows.column_names} | {
        "weight": made.weight_B,
        "teacher_id": teachers,
        "topk_ids": nested(parts(made.ids_NK), pa.int32()),
        "topk_logprobs": nested(parts(made.logprobs_NK), pa.float32()),
        "tail_mass": joined(parts(made.tail_N), pa.float32()),
        "target_logprob": joined(parts(made.target_logprob_N), pa.float32()),
        "features": [cell({n: v[i] for n, v in taps.items()}) if taps else None for i in range(len(rows))],
    }
    return SIGNALS.batch(**columns)
