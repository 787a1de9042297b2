"""Prompts as rules see them, and what two of them must have in common to be one item."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contracts import whole
from pipeline.kinds.rule import Texts
from pipeline.tables import ids
from pipeline.tables.parquet import Scan
from pipeline.tables.sorting import cut, in_order
from pipeline.tables.texts import Column
from pipeline.text.answers import NUMBER
from pipeline.text.ngrams import plain, without_punctuation

# Of the arrays that an item is about, only what ids take of them is read.
COLUMNS = ["prompt_id", "messages", "group", "reference", "inputs"]
# Texts that rules which look at each by itself see together.
SOME = 25_000


def texts_of(prompts: Scan, scratch: Path) -> Iterator[Texts]:
    """The prompts of a pool as rules see them, in the order of their ids, some at a time; one that stands in two tables
    of the pool is one."""
    rows = in_order(prompts.batches(COLUMNS, whole=False), ["prompt_id"], scratch)
    for some in cut(rows, SOME, "prompt_id"):
        names = ids.names(some["prompt_id"])
        yield _texts(some.take(pa.array(np.flatnonzero(np.r_[True, names[1:] != names[:-1]]))))


def _texts(rows: pa.Table) -> Texts:
    messages = whole(rows["messages"])
    digests = [ids.digest(*ids.of_arrays(cell)) if cell else None for cell in rows["inputs"].to_pylist()]
    return texts_from(
        whole(rows["prompt_id"]),
        _turns(messages, system=False),
        systems=_turns(messages, system=True),
        groups=whole(rows["group"]),
        references=whole(rows["reference"]),
        inputs=pa.array(digests, pa.string()),
    )


def joined(pieces: Iterable[Texts], scratch: Path) -> Texts:
    """All texts as one, in files that are mapped."""
    with ExitStack() as files:
        columns = {field.name: Column(files.enter_context(TemporaryFile(dir=scratch))) for field in fields(Texts)}
        for texts in pieces:
            for name, column in columns.items():
                column.add(getattr(texts, name))
        return Texts(**{name: column.array() for name, column in columns.items()})


def texts_from(names: Sequence[str], raw: pa.Array, **others: Sequence[str | None]) -> Texts:
    """Texts with their comparable forms; `systems`, `groups`, `references` and `inputs` that are not given are what a
    text alone has."""
    nothing, compared = pa.nulls(len(raw), pa.string()), plain(raw)
    without = {"systems": pc.fill_null(nothing, ""), "groups": names, "references": nothing, "inputs": nothing}
    columns = {name: pa.array(column, pa.string()) for name, column in {"ids": names, **without, **others}.items()}
    words = pc.if_else(columns["inputs"].is_null(), without_punctuation(compared), "")
    return Texts(raw=raw, plain=compared, words=words, **columns)


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
        return numbers, *(column[i].as_py() for column in (texts.references, texts.systems, texts.inputs))

    return asked
