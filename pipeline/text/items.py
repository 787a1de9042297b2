"""Prompts as rules see them, and what two of them must have in common to be one item."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kinds.rule import Texts
from pipeline.tables import ids
from pipeline.text.answers import NUMBER
from pipeline.text.ngrams import plain, without_punctuation

# Of the arrays that an item is about, only what ids take of them is read.
COLUMNS = ["prompt_id", "messages", "group", "reference", "inputs"]


def texts_of(rows: pa.Table) -> Texts:
    """Rows of `prompts` as rules see them; a prompt that stands in two tables of a pool is one."""
    rows = rows.sort_by("prompt_id")
    every = rows["prompt_id"].to_pylist()
    rows = rows.take([i for i, prompt_id in enumerate(every) if i == 0 or prompt_id != every[i - 1]])
    messages = rows["messages"].combine_chunks()
    return texts_from(
        rows["prompt_id"].to_pylist(),
        _turns(messages, system=False),
        systems=_turns(messages, system=True).to_pylist(),
        groups=rows["group"].to_pylist(),
        references=rows["reference"].to_pylist(),
        inputs=[ids.digest(*ids.of_arrays(cell)) if cell else None for cell in rows["inputs"].to_pylist()],
    )


def texts_from(
    names: list[str],
    raw: pa.Array,
    *,
    systems: list[str] | None = None,
    groups: list[str] | None = None,
    references: list[str | None] | None = None,
    inputs: list[str | None] | None = None,
) -> Texts:
    """Texts with their comparable forms; what is not given is what a text alone has."""
    compared = plain(raw)
    inputs = inputs or [None] * len(names)
    worded = pa.array([digest is None for digest in inputs], pa.bool_())
    return Texts(
        ids=names,
        raw=raw,
        plain=compared,
        words=pc.if_else(worded, without_punctuation(compared), ""),
        systems=systems or [""] * len(names),
        groups=groups or names,
        references=references or [None] * len(names),
        inputs=inputs,
    )


def _turns(messages: pa.ListArray, *, system: bool) -> pa.Array:
    """The contents of each conversation's turns that are the system's, or are not, one below the other."""
    turns, owner = messages.flatten(), messages.value_parent_indices().to_numpy()
    chosen = pc.equal(pc.struct_field(turns, "role"), "system")
    chosen = chosen if system else pc.invert(chosen)
    counts = np.bincount(owner[chosen.to_numpy(zero_copy_only=False)], minlength=len(messages))
    offsets = pa.array(np.r_[0, np.cumsum(counts)], pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, pc.struct_field(turns, "content").filter(chosen)), "\n")


def item(texts: Texts) -> Callable[[int], Hashable]:
    """From a position to what its prompt asks for, beside its wording: its numbers, its reference, how it is
    introduced, and its arrays. A template that is filled otherwise is another item."""

    def asked(i: int) -> Hashable:
        numbers = tuple(NUMBER.findall(texts.plain[i].as_py()))
        return numbers, texts.references[i], texts.systems[i], texts.inputs[i]

    return asked
