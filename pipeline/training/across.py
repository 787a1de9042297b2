"""A teacher of other tokens: the student's rows cut anew for it, and the places where both have spelt the same.

Where that is is decided here and nowhere else. A *group* is some places of the student and some of the teacher in one
answer. By `bytes` a group closes wherever both end at the same byte, and the ends of both answers are one; by
`position` the first place of one goes with the first of the other, and so on, and what is over is left out. G groups,
U outcomes of the teacher.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.contracts import EXAMPLES
from pipeline.errors import Refused
from pipeline.kinds.network import Network
from pipeline.model.chat import Chat
from pipeline.model.pieces import pieces
from pipeline.tables.lists import inside, lengths, padded, values, whole
from pipeline.tables.parquet import Scan
from pipeline.training.places import Beside, Places
from pipeline.training.rows import Rows

# Rows that are read together, and how much of a text a refusal shows.
SOME, SHOWN = 1024, 60
CUT = pa.schema([EXAMPLES.schema.field(name) for name in ("token_ids", "spans")])


class Across:
    """What a teacher reads of every row of a student's, and the groups of both by either alignment."""

    def __init__(self, rows: Rows, texts: Scan, student: Path, teacher: Path, network: Network) -> None:
        self.network, self.form = network, teacher
        own, other = Chat(student), Chat(teacher)
        self.own, self.other = pieces(own), pieces(other)
        self.outcome_U = torch.from_numpy(shared(self.own, self.other))
        # The ends of an answer say the same and spell nothing.
        self.outcome_U[other.eos_id] = own.eos_id
        wanted: dict[str, tuple[str, list[np.ndarray]]] = {}
        for start in range(0, len(rows), SOME):
            some = rows.take(range(start, min(start + SOME, len(rows))))
            names = some.select(["example_id", "response_ids", "spans"]).to_pylist()
            for row, said in zip(names, _said(some), strict=True):
                wanted[row["response_ids"][0]] = row["example_id"], _by_answer(said, row["spans"])
        self.number: dict[str, int] = {}
        self.groups: list[dict[str, np.ndarray]] = []
        cut: list[pa.RecordBatch] = []
        for batch in texts.batches(["response_id", "messages", "content"], SOME):
            found = [row for row in batch.to_pylist() if row["response_id"] in wanted]
            made = [self._cut(row, *wanted.pop(row["response_id"])) for row in found]
            cut.append(pa.RecordBatch.from_pylist(made, schema=CUT))
        if wanted:
            response, (example, _) = next(iter(wanted.items()))
            raise Refused(
                f"example {example} was made of the response {response}, which `texts` does not hold; name the table "
                f"of responses that the examples were packed from"
            )
        self.table = pa.Table.from_batches(cut, CUT).combine_chunks()

    def _cut(self, response: Mapping[str, Any], example: str, said: Sequence[np.ndarray]) -> dict[str, Any]:
        answers: dict[str, Any] = {"answers": "every"} if len(said) > 1 else {}
        packed = self.network.pack(self.form, response["messages"], response["content"], **answers)
        token_ids = np.array(packed.token_ids, np.int32)
        own = [[self.own[i] for i in answer] for answer in said]
        other = [[self.other[i] for i in token_ids[start:end]] for start, end in packed.spans]
        if [b"".join(answer) for answer in own] != [b"".join(answer) for answer in other]:
            both = (b"".join(itertools.chain(*each)) for each in (own, other))
            student, teacher = (repr(each.decode("utf-8", "replace")[:SHOWN]) for each in both)
            raise Refused(
                f"example {example}: the tokens of the student spell {student} and those of the teacher {teacher}. "
                f"Leave out what one of both cannot spell, or pack with `train_on: answer`"
            )
        self.number[example] = len(self.number)
        self.groups.append({by: _groups(cut, own, other) for by, cut in ALIGNED.items()})
        return {"token_ids": token_ids, "spans": [{"start": start, "end": end} for start, end in packed.spans]}

    def beside(self, found: Places, rows: pa.Table) -> Places:
        """The places of some rows, with what the teacher reads of them."""
        numbers = [self.number[name] for name in rows["example_id"].to_pylist()]
        table = self.table.take(pa.array(numbers))
        heard = _said(table)
        own_B = np.bincount(found.example_N.numpy(), minlength=len(rows))
        begins_B2 = np.stack([np.cumsum(own_B) - own_B, np.cumsum(n := np.array([*map(len, heard)])) - n], 1)
        groups = {
            by: torch.from_numpy(
                np.concatenate([self.groups[n][by] + begins_B2[row].repeat(2) for row, n in enumerate(numbers)])
            )
            for by in ALIGNED
        }
        target_M = torch.from_numpy(np.concatenate(heard).astype(np.int64))
        counts = {by: len(each) for by, each in groups.items()}
        read = Beside(self.network.collate(table), target_M, groups, self.outcome_U)
        return replace(found, beside=read, counts={**found.counts, **counts})


def by_bytes(own: Sequence[bytes], other: Sequence[bytes]) -> np.ndarray:
    """Groups [G, 4] of two spellings of one text: places of the student from and to, of the teacher from and to.

    What spells nothing, such as the end of an answer, goes with what spells nothing there.
    """
    ends, other_ends = (np.cumsum([len(piece) for piece in each]).tolist() for each in (own, other))
    groups, i, j, begin = [], 0, 0, (0, 0)
    while i < len(ends) and j < len(other_ends):
        if ends[i] == other_ends[j]:
            groups.append((begin[0], i + 1, begin[1], j + 1))
            begin = i + 1, j + 1
        later = ends[i] - other_ends[j]
        i, j = i + (later <= 0), j + (later >= 0)
    return np.array(groups, np.int64).reshape(-1, 4)


def by_position(own: Sequence[bytes], other: Sequence[bytes]) -> np.ndarray:
    """Groups [G, 4] of a place each."""
    at = np.arange(min(len(own), len(other)))
    return np.stack([at, at + 1, at, at + 1], 1)


ALIGNED = {"bytes": by_bytes, "position": by_position}


def _groups(
    aligned: Callable[[Sequence[bytes], Sequence[bytes]], np.ndarray],
    own: Sequence[Sequence[bytes]],
    other: Sequence[Sequence[bytes]],
) -> np.ndarray:
    """The groups [G, 4] of all answers of a row, one answer after another."""
    begins_2, found = np.zeros(2, np.int64), []
    for one, two in zip(own, other, strict=True):
        found.append(aligned(one, two) + begins_2.repeat(2))
        begins_2 += [len(one), len(two)]
    return np.concatenate(found)


def shared(own: Sequence[bytes], other: Sequence[bytes]) -> np.ndarray:
    """For each of the teacher's outcomes the student's that spells the same, -1 where there is none, [U].

    Of several that spell the same the first; what spells nothing has none.
    """
    first = {piece: number for number, piece in reversed(list(enumerate(own))) if piece}
    taken = {piece: number for number, piece in reversed(list(enumerate(other)))}
    return np.array([first.get(p, -1) if taken[p] == n else -1 for n, p in enumerate(other)], np.int64)


def _by_answer(said: np.ndarray, spans: Sequence[Mapping[str, int]]) -> list[np.ndarray]:
    """The tokens at a row's places, answer by answer."""
    return np.split(said, np.cumsum([span["end"] - span["start"] for span in spans])[:-1])


def _said(rows: pa.Table) -> list[np.ndarray]:
    """The tokens at the places of each row."""
    tokens, sizes = whole(rows, "token_ids"), lengths(whole(rows, "token_ids"))
    width = int(sizes.max(initial=1))
    at_BT = inside(whole(rows, "spans"), width)
    ids_BT = padded(values(tokens).to_numpy(), sizes, width)
    return [ids_T[at_T] for ids_T, at_T in zip(ids_BT, at_BT, strict=True)]
