"""Judge: one number per answer, from what another model said about it.

Reads responses, and the prompts and responses of the pool in which it was asked; writes scores.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.contracts import PROMPTS, RESPONSES, SCORES
from pipeline.core import graph
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import NAME, Input, Plan, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.judge import Judge, Verdict
from pipeline.kinds.verifier import metric_of
from pipeline.tables.parquet import Scan

NOTHING: dict[str, Any] = {"score": None, "quantities": []}


class Params(StageParams):
    of: str = Field(pattern="^responses/")
    by: str = Field(pattern=NAME)
    use: Use[Judge]
    entries: tuple[str, ...] | None = Field(default=None, alias="from", min_length=1)

    def inputs(self) -> dict[str, Input]:
        pool = self.of.split("/")[1]
        asked = f"nothing asks about answers in the pool {self.by}. Add an entry to derive, for example "
        asked += f"`ask: {{of: {pool}, pool: {self.by}, against: <the pool of the benchmark>, use: questions.points}}`"
        answered = f"nothing answers the pool {self.by}. Add an entry to generate with `pool: {self.by}`"
        return {
            "responses": Input(self.of, RESPONSES),
            "questions": Input(f"prompts/{self.by}", PROMPTS, missing=asked),
            "replies": Input(f"responses/{self.by}", RESPONSES, missing=answered),
        }

    def output(self, instance: str) -> str:
        return f"scores/{self.of}/{instance}"

    def check(self, plan: Plan) -> list[str]:
        """Questions about other answers, of another kind, or asked with other arguments than they are judged with."""
        pool, wanted = self.of.split("/")[1], self.use.method.traits["verdict"]
        faults = []
        for maker in graph.writers_of(plan, self.by):
            whose = f"{maker.stage}.{maker.name}"
            asks = [use for use in maker.params.methods() if "verdict" in use.method.traits]
            if not asks or getattr(maker.params, "of", None) != pool:
                faults.append(f"by: {whose} writes into {self.by} what are no questions about answers to {pool}")
                continue
            verdict, given, own = asks[0].method.traits["verdict"], asks[0].arguments, self.use.arguments
            if verdict != wanted:
                faults.append(f"by: {whose} asks in {self.by} for {verdict!r}, and {self.use.name} reads {wanted!r}")
            if verdict != "points" and getattr(maker.params, "limit", None):
                faults.append(f"by: `limit` of {whose} parts the two orders of a pair; bound the pairs by `most` there")
            other = [key for key in own if given.get(key, own[key]) != own[key]]
            faults += [f"{key}: is {own[key]}, and {given[key]} in {whose}, which asks" for key in other]
        there = graph.entries_of(plan, f"responses/{self.by}")
        return faults + [
            f"from: no entry {entry!r} of generate answers the pool {self.by}; there are {', '.join(there)}"
            for entry in self.entries or ()
            if entry not in there
        ]


@stage(writes=SCORES, by="table", finds=("verifier",))
def judge(
    params: Params, responses: Scan, questions: Scan, replies: Scan, notes: dict, name: str, how: How
) -> Iterator[pa.RecordBatch]:
    """An answer was asked about once, whoever gave it and how often: a verdict on one holds for all of its prompt that
    say the same. Those that nothing was asked about have a null score."""
    columns = ["response_id", "prompt_id", "content", "verifier", "answer", "reference"]
    rows = sorted(responses.pylist(columns), key=lambda row: row["response_id"])
    first: dict[tuple[str, str], str] = {}
    one = {
        row["response_id"]: first.setdefault((row["prompt_id"], row["content"]), row["response_id"])
        for row in rows
        if row["content"] is not None
    }
    verdicts = _verdicts(params, questions, replies, one)
    if not verdicts:
        raise Refused(
            f"judge.{name}: no question of {params.by} that was answered is about an answer of {params.of}; look at "
            f"its `from:`, and at the `of:`, `from:` and `which:` of what makes {params.by}"
        )
    found = params.use.build()(verdicts)
    scored = [(row, found.get(one.get(row["response_id"], ""), NOTHING)) for row in rows]
    _tell(params, found.values(), scored, notes, how)
    yield SCORES.rows({"response_id": r["response_id"], "prompt_id": r["prompt_id"], **s} for r, s in scored)


def _verdicts(params: Params, questions: Scan, replies: Scan, one: Mapping[str, str]) -> list[Verdict]:
    """What was said to every question about answers that are there; what was not said to its end is no verdict."""
    said: dict[str, list[str | None]] = defaultdict(list)
    for reply in replies.pylist(["prompt_id", "entry", "answer", "finish_reason"]):
        if reply["entry"] in (params.entries or (reply["entry"],)):
            said[reply["prompt_id"]].append(reply["answer"] if reply["finish_reason"] == "stop" else None)
    about = {row["prompt_id"]: row["parent_ids"] or () for row in questions.pylist(["prompt_id", "parent_ids"])}
    return [
        Verdict(tuple(one.get(answer, answer) for answer in about[question]), tuple(texts))
        for question, texts in sorted(said.items())
        if any(answer in one for answer in about.get(question, ()))
    ]


def _tell(
    params: Params,
    found: Iterable[Mapping[str, Any]],
    scored: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
    notes: dict,
    how: How,
) -> None:
    """Say how much of what was asked is of use, and how far the judge agrees with the verifier where that can tell."""
    counts: Counter[str] = Counter()
    for row in found:
        counts.update(dict(row["quantities"]))
    shares = {name: counts[name] / max(counts["asked"], 1) for name in ("unread", "inconsistent") if name in counts}
    notes |= shares
    how.say(", ".join(f"{share:.0%} of what was asked is {name}" for name, share in shares.items()))
    if good := params.use.method.traits.get("good"):
        bar = good(params.use.arguments)
        metrics = [(s["score"], metric_of(r["verifier"], r["answer"], r["reference"])) for r, s in scored]
        known = [(score > bar, metric == 1) for score, metric in metrics if None not in (score, metric)]
        if known:
            notes["verifier"] = agreement(known)
            told = {name: "none" if n is None else f"{n:.3g}" for name, n in notes["verifier"].items()}
            how.say("beside the verifier: " + ", ".join(f"{name} {n}" for name, n in told.items()))


def agreement(known: Sequence[tuple[bool, bool]]) -> dict[str, float | None]:
    """How often what the judge takes for good is right, and their agreement beyond chance; null where it is undefined.

    Source: Cohen 1960 (A coefficient of agreement for nominal scales).
    """
    n, good, right = len(known), sum(said for said, _ in known), sum(is_right for _, is_right in known)
    both, same = sum(said and is_right for said, is_right in known), sum(said == is_right for said, is_right in known)
    chance = good * right + (n - good) * (n - right)
    return {
        "n": n,
        "good": good,
        "right": right,
        "precision": both / good if good else None,
        "recall": both / right if right else None,
        "kappa": (n * same - chance) / (n * n - chance) if n * n > chance else None,
    }
