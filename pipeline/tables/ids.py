"""Ids made from content, and randomness keyed by names.

Nothing here depends on order, time or machine: the same content has the same id everywhere, and a draw for a
record is the same however the work is cut into parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables import mapped

ID_BYTES = 16
# Ids that are rewritten together.
SOME = 1 << 16
# As many as the ids that are sorted together are of all.
SHELVES = 32
# What a letter of an id counts, -1 where it is none.
DIGITS = np.full(256, -1)
DIGITS[list(b"0123456789abcdef")] = np.arange(16)
# A cell of the type TENSORS (`contracts.py`).
Cell = Sequence[Mapping[str, Any]]
# Made once: `json.dumps` with these arguments makes an encoder for every call.
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def digest(*content: Any) -> str:
    """A 32-character hexadecimal id of JSON-able content; equal content gives equal ids."""
    return _hashed(_encode(content).encode("utf-8", "surrogatepass"))


def _of_words(*content: Any) -> str:
    """`digest` of lists of texts and whole numbers alone, which a faster library spells the same."""
    try:
        return _hashed(orjson.dumps(content))
    except TypeError:  # half of a surrogate pair, a number of more than 64 bits
        return digest(*content)


def _hashed(spelt: bytes) -> str:
    return hashlib.blake2b(spelt, digest_size=ID_BYTES).hexdigest()


def digests(head: Sequence[Any], rows: Iterable[Sequence[int]], tail: Sequence[Any] = ()) -> list[str]:
    """The `digest` of each list that is the head, a row of whole numbers, and the tail; the head is hashed once."""
    before = hashlib.blake2b(_encode(head)[:-1].encode("utf-8", "surrogatepass"), digest_size=ID_BYTES)
    end = ("," + _encode(tail)[1:] if tail else "]").encode("utf-8", "surrogatepass")
    found = []
    for row in rows:
        whole = before.copy()
        whole.update((b",%d" * len(row)) % tuple(row) + end)
        found.append(whole.hexdigest())
    return found


def of_arrays(cell: Cell | None) -> list[Any]:
    """What an id takes of a cell of arrays, wherever their bytes lie; nothing if there is no array."""
    return [[[a["name"], a["dtype"], list(a["shape"]), a["digest"]] for a in cell]] if cell else []


def halves(name: str) -> tuple[int, int]:
    """An id as two numbers of 64 bits."""
    return int(name[:ID_BYTES], 16), int(name[ID_BYTES:], 16)


def prompt_id(messages: Sequence[dict[str, str]], inputs: Cell | None = None) -> str:
    """The id of a conversation to be answered: roles, contents, and the arrays it is about, nothing else."""
    turns = [[m["role"], m["content"]] for m in messages]
    return digest("prompt", turns, *of_arrays(inputs)) if inputs else _of_words("prompt", turns)


def group(text: str, inputs: Cell | None = None) -> str:
    """The group of an item that was given none: all that say the same about the same arrays share it."""
    return digest("group", text, *of_arrays(inputs)) if inputs else _of_words("group", text)


def example_id(
    token_ids: Sequence[int], spans: Sequence[Sequence[int]], inputs: Cell | None = None, outputs: Cell | None = None
) -> str:
    """The id of what is trained on: tokens, spans, and the arrays beside them."""
    if not (inputs or outputs):
        return _of_words("example", token_ids, spans)
    targets = ["outputs", *of_arrays(outputs)] if outputs else []
    return digest("example", token_ids, spans, *of_arrays(inputs), *targets)


def response_id(sample: str, content: str | None, outputs: Cell | None = None) -> str:
    """The id of what came back for a sample, so that a label given to one answer never lands on another."""
    return (
        digest("response", sample, content, *of_arrays(outputs)) if outputs else _of_words("response", sample, content)
    )


def seed_of(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named purpose, for example `seed_of(17, "generate", prompt_id, sample)`."""
    return int(_of_words("seed", seed, *names)[:16], 16) >> 1


def seeds_of(k: int, seed: int, *names: str | int) -> list[int]:
    """`seed_of` these names and every number below k."""
    return [int(name[:16], 16) >> 1 for name in digests(["seed", seed, *names], ((i,) for i in range(k)))]


def draw(seed: int, *names: str | int) -> float:
    """One uniform number in [0, 1) for one named purpose."""
    return (int(_of_words("draw", seed, *names)[:14], 16) >> 3) / 2**53


def draws(seed: int, purpose: str, ids: Sequence[str | bytes] | np.ndarray) -> np.ndarray:
    """The `draw` of every id, shape [len(ids)]; reordering the ids reorders the numbers."""
    found = np.empty(len(ids))
    # What all of them begin with is hashed once.
    before = hashlib.blake2b(_encode(["draw", seed, purpose])[:-1].encode() + b",", digest_size=ID_BYTES)
    for start in range(0, len(ids), SOME):
        some = b"".join(_rest(before, text(i)) for i in ids[start : start + SOME])
        found[start : start + SOME] = (np.frombuffer(some, ">u8")[::2] >> 11) / 2**53
    return found


def _rest(before: Any, name: str) -> bytes:
    """The digest of a list of which `before` has all but the last word."""
    whole = before.copy()
    whole.update(f"{_encode(name)}]".encode("utf-8", "surrogatepass"))
    return whole.digest()


def text(name: str | bytes) -> str:
    """An id as a text, also of an array of `names`."""
    return name.decode() if isinstance(name, bytes) else name


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for one named purpose."""
    return np.random.Generator(np.random.Philox(key=seed_of(seed, *names)))


def names(
    column: pa.Array | pa.ChunkedArray, scratch: Path | None = None, where: np.ndarray | None = None
) -> np.ndarray:
    """A column of ids as bytes, [n], in one array and without a Python object each; with a folder `scratch`, in a
    mapped file without a name there, and with a mask `where`, those of its rows."""
    width = max(1, pc.max(pc.binary_length(column)).as_py() or 1)
    found = mapped.array((len(column) if where is None else int(where.sum()),), f"S{width}", scratch)
    start = end = 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        for some in (chunk.slice(at, SOME) for at in range(0, len(chunk), SOME)):
            mask, start = slice(start, start + len(some)), start + len(some)
            some = some if where is None else some.filter(pa.array(where[mask]))
            padded = pc.ascii_rpad(some, width, "\0")
            data = np.frombuffer(padded.buffers()[2], found.dtype) if len(padded) else found[:0]
            found[end : end + len(some)] = data[padded.offset : padded.offset + len(some)]
            end += len(some)
    return found


def ranks(given: np.ndarray) -> np.ndarray:
    """Every id's place among the different ones in their order, [n]: as `np.unique` tells it, in a few bytes each."""
    found, known = np.empty(len(given), np.int32), 0
    some = np.sort(given[:: 1 + len(given) // SOME])
    edges = np.unique(some[:: 1 + len(some) // SHELVES][1:])
    shelf = np.empty(len(given), np.int8)
    for at in range(0, len(given), SOME):
        shelf[at : at + SOME] = np.searchsorted(edges, given[at : at + SOME], "right")
    for one in range(len(edges) + 1):
        rows = np.flatnonzero(shelf == one)
        different, places = np.unique(given[rows], return_inverse=True)
        found[rows] = known + places
        known += len(different)
    return found


def places(given: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Where each id stands among others that are in order, [n]; -1 where it does not."""
    at = np.searchsorted(among, given)
    there = at < len(among)
    there[there] = among[at[there]] == given[there]
    return np.where(there, at, -1)


def part_of(prompt: str, parts: int) -> int:
    """The part that holds everything about a prompt."""
    return int(prompt[:8], 16) % parts


def parts_of(prompts: pa.Array, parts: int) -> np.ndarray:
    """The part of every prompt, [n]."""
    found = names(prompts)
    letters = found.view(np.uint8).reshape(-1, found.dtype.itemsize)[:, :8]
    digits = DIGITS[letters]
    if letters.shape[1] < 8 or (digits < 0).any():
        return np.array([part_of(prompt, parts) for prompt in prompts.to_pylist()], np.int64)
    return digits @ (16 ** np.arange(7, -1, -1)) % parts
