"""Curate: what not to use in a pool, and why: duplicates, contamination.  Reads prompts, writes drops/<pool>."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveInt

from pipeline.contracts import DROPS, PROMPTS
from pipeline.core.methods import Use
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.kinds.rule import Rule, Texts
from pipeline.tables.parquet import Scan
from pipeline.text.canaries import planted
from pipeline.text.items import joined, texts_of

# The share of prompts from which on a rule may have hit a template instead of items.
TOLD = 0.05
# Keys that stand for `rules:`.
SHORT = ("near", "near_words", "ngram")


class Params(StageParams):
    instance: str
    against: str
    rules: tuple[Use[Rule], ...] | None = None
    near: Annotated[float, Field(gt=0, le=1)] | None = None
    near_words: PositiveInt = 3
    ngram: PositiveInt | None = 13

    def inputs(self) -> dict[str, Input]:
        return {
            "prompts": Input(f"prompts/{self.instance}", PROMPTS),
            "against": Input(f"prompts/{self.against}", PROMPTS),
        }

    def output(self, instance: str) -> str:
        return f"drops/{instance}"

    def methods(self) -> list[Use]:
        """The rules in the order in which they are asked; the short keys stand for the usual ones."""
        if self.rules is not None:
            return list(self.rules)
        usual: list[dict[str, object]] = [{"use": "duplicates.exact"}]
        if self.near is not None:
            usual.append({"use": "duplicates.minhash", "threshold": self.near, "words": self.near_words})
        usual.append({"use": "contamination.key"})
        if self.ngram is not None:
            usual.append({"use": "contamination.ngram", "words": self.ngram})
        return [Use[Rule].model_validate(use) for use in usual]

    def check(self, plan: Plan) -> list[str]:
        faults = (
            [] if self.against != self.instance else ["against: is the pool itself; name the pool of the benchmark"]
        )
        if self.rules == ():
            faults.append("rules: is empty, so nothing would be looked at; name a rule, or leave the key out")
        if self.rules is not None:
            given = [key for key in SHORT if key in self.model_fields_set]
            faults += [f"{key}: stands for a rule, and `rules` lists them; say it there" for key in given]
            names = Counter(use.method.traits["drops"] for use in self.rules)
            twice = [name for name, times in names.items() if times > 1]
            faults += [
                f"rules: two of them drop by the name {name!r}, and a prompt is dropped once by each" for name in twice
            ]
        return faults


@stage(writes=DROPS, by="table")
def curate(params: Params, prompts: Scan, against: Scan, notes: dict, how: How, out: Path) -> Iterator[pa.RecordBatch]:
    """A prompt may be dropped for several reasons; each is a row with its evidence. Nothing is deleted.

    Rules that hold prompts against each other see all at once, in mapped files, and all others some at a time.
    """
    benchmark = joined(texts_of(against, out), out)
    rules = {use.method.traits["drops"]: (use, use.build()) for use in params.methods()}
    drops: list[dict[str, str]] = []

    def judge(texts: Texts, together: bool) -> Texts:
        for name, (use, rule) in rules.items():
            if (use.method.traits["sees"] == "pool") == together:
                found = rule(texts, benchmark)
                drops.extend({"prompt_id": texts.ids[i].as_py(), "rule": name, "evidence": found[i]} for i in found)
        return texts

    pool = judge(joined((judge(texts, together=False) for texts in texts_of(prompts, out)), out), together=True)
    against_it = [(use, rule) for use, rule in rules.values() if use.method.traits["sees"] == "benchmark"]
    if against_it:
        notes["canaries"] = canaries(against_it, benchmark)
        told = ", ".join(f"{kind} {found} of {all}" for kind, (found, all) in notes["canaries"].items())
        how.say(f"copies of items of {params.against} that were planted and found: {told}")
    counts = {rule: sum(drop["rule"] == rule for drop in drops) for rule in sorted({drop["rule"] for drop in drops})}
    notes.update(prompts=len(pool), drops=counts)
    how.say(", ".join(f"{n} {rule}" for rule, n in counts.items()) or "nothing to drop")
    if counts.get("contaminated_ngram", 0) > TOLD * len(pool):
        how.say(
            f"{counts['contaminated_ngram']} of {len(pool)} prompts share "
            f"{rules['contaminated_ngram'][0].arguments['words']} words in a row with a "
            f"benchmark item; the drops say which words. If these are what your prompts have in common and no item, "
            f"raise `ngram:`, or write `ngram: null`"
        )
    yield DROPS.rows(drops)


def canaries(rules: list[tuple[Use[Rule], Rule]], benchmark: Texts) -> dict[str, tuple[int, int]]:
    """How many planted copies of every kind the rules find, and of how many; copies that one of the rules is bound to
    find must be found."""
    counts = {}
    for kind, copies in planted(benchmark).items():
        found, bound = np.zeros(len(copies.texts), bool), np.zeros(len(copies.texts), bool)
        for use, rule in rules:
            found[list(rule(copies.texts, benchmark))] = True
            least = use.method.traits["copies"](use.arguments).get(kind)
            bound |= least is not None and copies.own >= least
        if not found[bound].all():
            raise RuntimeError(
                f"only {found[bound].mean():.1%} of the planted copies of benchmark items were found ({kind}), "
                f"{copies.texts.raw[int(np.flatnonzero(bound & ~found)[0])]} not"
            )
        if len(found):
            counts[kind] = (int(found.sum()), len(found))
    return counts
