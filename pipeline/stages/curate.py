"""Curate: what not to use in a pool, and why: duplicates and contamination.  Reads prompts, writes drops/<pool>."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveInt

from pipeline.contracts import DROPS, MESSAGES, PROMPTS
from pipeline.core.run import How
from pipeline.core.stage import Input, Plan, StageParams, stage
from pipeline.tables import ids
from pipeline.tables.parquet import NAMED, Scan
from pipeline.text.answers import NUMBER
from pipeline.text.contamination import Template, shared_ngrams
from pipeline.text.duplicates import near_duplicates
from pipeline.text.ngrams import plain, without_punctuation, words_of

# Benchmark items of which copies are planted, to see that they are found.
CANARIES = 50
# The share of prompts from which on a rule may have hit a template instead of items.
TOLD = 0.05
# What a typesetter makes of what a keyboard writes.
TYPESET = str.maketrans({"'": "\u2019", '"': "\u201d", "-": "\u2013", "!": "\uff01", "?": "\uff1f", ",": "\uff0c"})
COLUMNS = ["prompt_id", "messages", "group", "reference", "inputs"]
Drop = dict[str, str]


class Params(StageParams):
    instance: str
    against: str
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

    def check(self, plan: Plan) -> list[str]:
        return ["against: is the pool itself; name the pool of the benchmark"] if self.against == self.instance else []


@stage(writes=DROPS, by="table")
def curate(params: Params, prompts: Scan, against: Scan, notes: dict, how: How) -> Iterator[pa.RecordBatch]:
    """A prompt may be dropped for several reasons; each is a row with its evidence. Nothing is deleted."""
    pool, benchmark = (Prompts(scan.read(COLUMNS, whole=False)) for scan in (prompts, against))
    drops = exact_duplicates(pool)
    if params.near is not None:
        drops += near_twins(pool, params.near, params.near_words)
    drops += contaminated(pool, benchmark, params.ngram)
    recall = canary_recall(benchmark, params.ngram)
    how.say(f"canaries: {recall:.0%} of the planted copies of benchmark items were found")
    if recall < 1:
        raise RuntimeError(f"only {recall:.1%} of the planted copies of benchmark items were found")
    counts = {rule: sum(drop["rule"] == rule for drop in drops) for rule in sorted({drop["rule"] for drop in drops})}
    notes.update(prompts=len(pool.ids), drops=counts, canary_recall=recall)
    how.say(", ".join(f"{n} {rule}" for rule, n in counts.items()) or "nothing to drop")
    if counts.get("contaminated_ngram", 0) > TOLD * len(pool.ids):
        how.say(
            f"{counts['contaminated_ngram']} of {len(pool.ids)} prompts share {params.ngram} words in a row with a "
            f"benchmark item; the drops say which words. If these are what your prompts have in common and no item, "
            f"raise `ngram:`, or write `ngram: null`"
        )
    yield DROPS.rows(drops)


class Prompts:
    """Prompts ordered by id, with their texts in comparable form. System turns are kept apart: a pool and a benchmark
    may share one without sharing an item. Of the arrays that an item is about, only what ids take of them is here."""

    def __init__(self, rows: pa.Table) -> None:
        rows = rows.sort_by("prompt_id")
        every = rows["prompt_id"].to_pylist()
        # Two tables of a pool may hold the same prompt; it is one.
        rows = rows.take([i for i, prompt_id in enumerate(every) if i == 0 or prompt_id != every[i - 1]])
        self.ids: list[str] = rows["prompt_id"].to_pylist()
        self.groups: list[str] = rows["group"].to_pylist()
        self.references: list[str | None] = rows["reference"].to_pylist()
        messages = rows["messages"].combine_chunks()
        self.raw = _turns(messages, system=False)
        self.texts = plain(self.raw)
        self.systems: list[str] = _turns(messages, system=True).to_pylist()
        self.cells: list[list[dict] | None] = rows["inputs"].to_pylist()
        self.inputs = [ids.digest(*ids.of_arrays(cell)) if cell else None for cell in self.cells]
        # What is asked in words alone: beside an array they may be one instruction for all items.
        worded = pa.array([inputs is None for inputs in self.inputs], pa.bool_())
        self.words = pc.if_else(worded, without_punctuation(self.texts), "")

    def wordings(self) -> list[tuple[str, str | None]]:
        """What decides whether two prompts are one item: their text, and the arrays that it is about."""
        return list(zip(self.texts.to_pylist(), self.inputs, strict=True))

    def items(self) -> list[tuple[object, ...]]:
        """What a prompt asks for, beside its wording: its numbers, its reference, how it is introduced, and its
        arrays."""
        numbers = (tuple(NUMBER.findall(text)) for text in self.texts.to_pylist())
        return list(zip(numbers, self.references, self.systems, self.inputs, strict=True))


def _turns(messages: pa.ListArray, *, system: bool) -> pa.Array:
    """The contents of each conversation's turns that are the system's, or are not, one below the other."""
    turns, owner = messages.flatten(), messages.value_parent_indices().to_numpy()
    chosen = pc.equal(pc.struct_field(turns, "role"), "system")
    chosen = chosen if system else pc.invert(chosen)
    counts = np.bincount(owner[chosen.to_numpy(zero_copy_only=False)], minlength=len(messages))
    offsets = pa.array(np.r_[0, np.cumsum(counts)], pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, pc.struct_field(turns, "content").filter(chosen)), "\n")


def exact_duplicates(pool: Prompts) -> list[Drop]:
    """Prompts that differ from one with a lower id in case and spacing only, and are about the same arrays."""
    first: dict[tuple[object, str], str] = {}
    drops = []
    for prompt_id, asked, system in zip(pool.ids, pool.wordings(), pool.systems, strict=True):
        kept = first.setdefault((asked, system), prompt_id)
        if kept != prompt_id:
            drops.append({"prompt_id": prompt_id, "rule": "exact", "evidence": f"the same {_what(asked)} as {kept}"})
    return drops


def _what(asked: tuple[str, str | None]) -> str:
    """What two prompts share, in words."""
    text, inputs = asked
    return "text" if inputs is None else "text and inputs" if text else "inputs"


def near_twins(pool: Prompts, threshold: float, words: int) -> list[Drop]:
    """Prompts that read much like another and ask for the same."""
    twins = near_duplicates(pool.texts, pool.items(), threshold=threshold, words=words)
    return [
        {
            "prompt_id": pool.ids[i],
            "rule": "near",
            "evidence": f"Jaccard {twin.similarity:.3f} with {pool.ids[twin.like]}; {pool.ids[twin.kept]} is kept",
        }
        for i, twin in twins.items()
    ]


def contaminated(pool: Prompts, benchmark: Prompts, ngram: int | None) -> list[Drop]:
    """Prompts that ask for a benchmark's item (by group, or whole text and arrays), or share a run of words with one.

    The first rule is the one that holds for templates, whose instances share words without being the same item, and
    for texts that are shorter than a run. The second is for prompts of words alone: what is asked about one picture may
    be asked about every other.
    """
    groups = dict(zip(reversed(benchmark.groups), reversed(benchmark.ids), strict=True))
    wordings = dict(zip(reversed(benchmark.wordings()), reversed(benchmark.ids), strict=True))
    drops = []
    for prompt_id, group, asked in zip(pool.ids, pool.groups, pool.wordings(), strict=True):
        item = groups.get(group) or wordings.get(asked)
        if item is not None:
            what = "group" if group in groups else _what(asked)
            drops.append({"prompt_id": prompt_id, "rule": "contaminated_key", "evidence": f"the {what} of {item}"})
    if ngram is not None:
        template = Template(benchmark.words)
        shared = shared_ngrams(template.without(pool.words), template.without(benchmark.words), ngram)
        drops += [
            {
                "prompt_id": pool.ids[i],
                "rule": "contaminated_ngram",
                "evidence": f"{benchmark.ids[hit.item]} has: {hit.words}",
            }
            for i, hit in shared.items()
        ]
    return drops


def canary_recall(benchmark: Prompts, ngram: int | None) -> float:
    """The share of planted copies that the rules find: verbatim, in capitals, with other spacing, in other typographic
    forms, and, where an item has enough words of its own for the n-gram rule, inside a longer text, with a space before
    and after it and without."""
    items, cells = benchmark.raw[:CANARIES], benchmark.cells[:CANARIES] * 4
    copies = [*items.to_pylist(), *pc.utf8_upper(items).to_pylist()]
    copies += ["  " + text.replace(" ", " \n ") + " " for text in items.to_pylist()]
    copies += [text.translate(TYPESET) for text in items.to_pylist()]
    if ngram is not None:
        own = words_of(Template(benchmark.words).without(benchmark.words)[:CANARIES])
        lengths = [sum(map(bool, words)) for words in own.to_pylist()]
        long = pc.utf8_title(items.filter(pa.array([length >= ngram for length in lengths], pa.bool_())))
        for around in ("Here is one more, quoted whole. {} And that is all of it.", "\uff08{}\uff09"):
            copies += [around.format(text).translate(TYPESET) for text in long.to_pylist()]
    planted = pa.table(
        {
            "prompt_id": [f"canary {i}" for i in range(len(copies))],
            "messages": pa.array([[{"role": "user", "content": text}] for text in copies], MESSAGES),
            "group": [f"canary {i}" for i in range(len(copies))],
            "reference": pa.nulls(len(copies), pa.string()),
            "inputs": pa.array(cells + [None] * (len(copies) - len(cells)), NAMED),
        }
    )
    found = {drop["prompt_id"] for drop in contaminated(Prompts(planted), benchmark, ngram)}
    return len(found) / len(copies) if copies else 1.0
