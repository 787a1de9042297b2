"""The memo: what a model answered once is never asked for again, and what it read once is never read again.

Answers are JSON text, so `sqlite3 data/.memo/requests.sqlite` shows them, and the view `pending` while a stage runs.
Readings are arrays: one line of JSON that names them, and their bytes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import Refused
from pipeline.kinds.backend import Reading, Sampling, Tokens, Want
from pipeline.memo.home import at_home
from pipeline.memo.store import FILE, KEPT, Store
from pipeline.tables import ids
from pipeline.tables.parquet import batched
from pipeline.tables.tensors import spelled

TAP = "tap:"
MOST_DAYS = 36_500
# The columns of `responses` that make an answer again, and say whose it is.
ANSWER = (
    "request_id", "content", "finish_reason", "reasoning", "token_ids", "logprobs", "error", "prompt_tokens",
    "completion_tokens", "cost_usd", "attempts", "fingerprint", "prompt_id", "sample",
    "outputs",
)  # fmt: skip


def request_keys(
    prompt_id: str,
    model_id: str,
    sampling: Sampling,
    drawn: Iterable[tuple[int, int]],
    engine: str = "",
    rendered: Sequence[int] | None = None,
) -> list[str]:
    """The ids of requests for samples of one prompt, each a number and a seed: all that determines their answers.
    `rendered` is the prompt in tokens, where it is rendered here; `engine` names what else decides, as the backend.

    How many samples there are is in none, so asking for 16 where 8 were asked before asks for 8 more.
    """
    how = [engine] if rendered is None else [engine, list(rendered)]
    return ids.digests(["request", prompt_id, model_id, sampling.content()], drawn, how)


def reading_key(tokens: Tokens, model_id: str, engine: str, want: Want) -> str:
    """The id of one reading: all that determines it."""
    asked = *tokens.asked(), want.top_k, want.embedding
    # What earlier versions did not know is left out where it is not wanted, so that their keys stay.
    taps = [list(want.taps)] if want.taps else []
    gradients = [want.gradient, want.adam, want.descent.id if want.descent else ""] if want.studies else []
    tempered = [{"temperatures": want.temperatures}] if want.temperatures else []
    return ids.digest("reading", model_id, engine, *asked, *taps, *gradients, *tempered, *ids.of_arrays(tokens.inputs))


@dataclass(frozen=True)
class Stats:
    """What a memo holds; `oldest` and `newest` are seconds since 1970, null if it is empty."""

    answers: int
    readings: int
    bytes: int
    oldest: float | None
    newest: float | None


@dataclass(frozen=True)
class Old:
    """How many answers or readings are old, whether they were paid for (null: not known), and what they cost."""

    what: str
    paid: bool | None
    n: int
    cost_usd: float


class Memo(Store):
    """Keys to answers and to readings, kept in a folder. A key's first value stays: later ones are ignored."""

    def get(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The answers of those keys that are known."""
        return {key: orjson.loads(value) for some in batched(keys) for key, value in self._get("memo", some)}

    def put(self, answers: Mapping[str, Mapping[str, Any]], paid: bool | None = None) -> None:
        """Keep these answers in one transaction: all of them, or none if it is cut short.

        `paid` is false where this machine can compute them again, null where nobody knows.
        """
        rows = [(k, orjson.dumps(v, option=orjson.OPT_SERIALIZE_NUMPY).decode()) for k, v in answers.items()]
        self._put("memo", rows, paid)

    @at_home
    def rename(self, keys: Mapping[str, str]) -> None:
        """Give answers other keys: old key -> new key."""
        with self.transaction() as connection:
            connection.executemany("UPDATE OR IGNORE memo SET key = ? WHERE key = ?", ((n, o) for o, n in keys.items()))

    def readings(self, keys: Iterable[str]) -> dict[str, Reading]:
        """The readings of those keys that are known; their ids are their keys."""
        return {key: _unpacked(key, value) for some in batched(keys) for key, value in self._get("readings", some)}

    def put_readings(self, readings: Mapping[str, Reading], paid: bool | None = None) -> int:
        """Keep these readings in one transaction, `paid` as in `put`; returns how many are new."""
        return self._put("readings", [(key, _packed(reading)) for key, reading in readings.items()], paid)

    def note(self, readings: Iterable[tuple[str, str]]) -> None:
        """Keep whose some readings are, or will be: keys and ids of prompts."""
        self._note(list(readings))

    @at_home
    def _note(self, readings: Sequence[tuple[str, str]]) -> None:
        with self.transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO read_of (key, prompt_id) VALUES (?, ?)", readings)

    @at_home
    def _get(self, table: str, keys: Sequence[str]) -> list[tuple[str, Any]]:
        with self.explained():
            return self.connection.execute(
                f"SELECT t.key, t.value FROM json_each(?) AS asked JOIN {table} t ON t.key = asked.value",
                (orjson.dumps(keys).decode(),),
            ).fetchall()

    @at_home
    def _put(self, table: str, rows: Sequence[tuple[str, str | bytes]], paid: bool | None) -> int:
        now = time.time()
        with self.transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                f"INSERT OR IGNORE INTO {table} (key, put_at, value, paid) VALUES (?, ?, ?, ?)",
                ((key, now, value, paid) for key, value in rows),
            )
            return connection.total_changes - before

    def stats(self) -> Stats:
        """How much is kept, and since when."""
        with self.explained():
            both = "SELECT put_at FROM memo UNION ALL SELECT put_at FROM readings"
            answers, readings, oldest, newest = self.connection.execute(
                f"SELECT (SELECT count(*) FROM memo), (SELECT count(*) FROM readings), min(put_at), max(put_at) "
                f"FROM ({both})"
            ).fetchone()
        files = [self.path, self.path.with_name(FILE + "-wal")]
        return Stats(answers, readings, sum(f.stat().st_size for f in files if f.exists()), oldest, newest)

    def older(self, days: float) -> list[Old]:
        """What was put longer ago than this, by what it is and whether it was paid for."""
        found = []
        with self.explained():
            for table, what in zip(KEPT, ("answers", "readings"), strict=True):
                dollars = "total(value ->> '$.cost_usd')" if table == "memo" else "0.0"
                rows = self.connection.execute(
                    f"SELECT paid, count(*), {dollars} FROM {table} WHERE put_at < ? GROUP BY paid ORDER BY paid",
                    (_before(days),),
                )
                found += [Old(what, None if paid is None else bool(paid), n, cost) for paid, n, cost in rows]
        return found

    def prune(self, days: float, *, also_paid: bool = False) -> int:
        """Forget what was put longer ago than this and give its room back; returns how many values went.

        What was paid for, or may have been, stays unless it is asked for too.
        """
        gone = 0
        which = "" if also_paid else "AND paid = 0"
        with self.transaction() as connection:
            for table in KEPT:
                found = connection.execute(f"DELETE FROM {table} WHERE put_at < ? {which}", (_before(days),))
                gone += found.rowcount
        self._shrink()
        return gone

    def forget(self, prompts: Iterable[str], keys: Iterable[str]) -> int:
        """Forget the answers to these prompts, the readings of them, what has these keys, and every reading of which
        nobody noted whose it is, if it can be computed again; no byte of them stays. Returns how many went."""
        named = [orjson.dumps(list(some)).decode() for some in (prompts, keys)]
        by_prompt, by_key = (
            f"{what} IN (SELECT value FROM json_each(?))" for what in ("value ->> '$.prompt_id'", "key")
        )
        with self.explained():
            self.connection.execute("PRAGMA secure_delete = ON")
        with self.transaction() as connection:
            gone = connection.execute(f"DELETE FROM memo WHERE {by_prompt} OR {by_key}", named).rowcount
            theirs = "key IN (SELECT key FROM read_of WHERE prompt_id IN (SELECT value FROM json_each(?)))"
            unknown = "paid = 0 AND key NOT IN (SELECT key FROM read_of)"
            which = f"{theirs} OR {by_key} OR {unknown}"
            gone += connection.execute(f"DELETE FROM readings WHERE {which}", named).rowcount
        self._shrink()
        return gone

    def bound(self, most: int) -> int:
        """Forget the oldest values that can be computed again until the rest takes this many bytes; what was paid for,
        or may have been, stays. Returns how many values went."""
        values = " UNION ALL ".join(f"SELECT '{t}' AS t, key, put_at, paid, length(value) AS n FROM {t}" for t in KEPT)
        with self.explained():
            [(held,)] = self.connection.execute(f"SELECT total(n) FROM ({values})").fetchall()
            # A value's share of the file, with its key and the rest of its page.
            over = held * (1 - most / max(self.stats().bytes, 1))
            order = f"SELECT t, key, sum(n) OVER (ORDER BY put_at, key) - n AS before FROM ({values}) WHERE paid = 0"
            old = self.connection.execute(f"SELECT t, key FROM ({order}) WHERE before < ?", (over,)).fetchall()
        with self.transaction() as connection:
            for table in KEPT:
                keys = ((key,) for of, key in old if of == table)
                connection.executemany(f"DELETE FROM {table} WHERE key = ?", keys)
        self._shrink()
        return len(old)

    def _shrink(self) -> None:
        """Give the room of what went back."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM read_of WHERE key NOT IN (SELECT key FROM readings)")
        with self.explained():
            self.connection.execute("VACUUM")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def fill(self, files: Iterable[Path]) -> int:
        """Learn the answers of recorded `responses` files, so that a clone asks for none of them; returns how many."""
        learnt = 0
        for file in files:
            recorded = pq.ParquetFile(file)
            # Tables of before the column was called `entry` hold answers that were paid for, too.
            entry = "entry" if "entry" in recorded.schema_arrow.names else "model"
            for batch in recorded.iter_batches(columns=[*ANSWER, entry]):
                found = batch.filter(pc.is_null(batch["error"])).to_pylist()
                rows = [{**row, "outputs": spelled(row.get("outputs"))} for row in found]
                before = self.connection.total_changes
                self.put({row["request_id"]: {"instance": f"generate@{row.pop(entry)}", **row} for row in rows})
                learnt += self.connection.total_changes - before
        return learnt

    def table(self, schema: pa.Schema, instances: Collection[str]) -> pa.Table:
        """The answers that these instances received as rows; the columns of `schema` are keys of what was put,
        `request_id` and `put_at`."""
        with self.explained():
            rows = self.connection.execute(
                "SELECT key, put_at, value FROM memo WHERE value ->> '$.instance' IN (SELECT value FROM json_each(?)) "
                "ORDER BY rowid",
                (orjson.dumps(sorted(instances)).decode(),),
            ).fetchall()
        values = [(key, put_at, orjson.loads(value)) for key, put_at, value in rows]
        return pa.Table.from_pylist(
            [{**v, "request_id": key, "put_at": datetime.fromtimestamp(put_at, UTC)} for key, put_at, v in values],
            schema,
        )


def _before(days: float) -> float:
    """Seconds since 1970; of 0 days, everything: a clock may stand still between two calls."""
    if not 0 <= days <= MOST_DAYS:
        raise Refused(f"days: must be 0 to {MOST_DAYS:,} (it is {days:g})")
    return time.time() - days * 86400 + (1 if days == 0 else 0)


def _packed(reading: Reading) -> bytes:
    arrays = {name: array for name, array in reading.__dict__.items() if isinstance(array, np.ndarray)}
    arrays |= {f"{TAP}{name}": array for name, array in reading.features.items()}
    head = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    return b"\n".join([orjson.dumps(head), b"".join(array.tobytes() for array in arrays.values())])


def _unpacked(key: str, value: bytes) -> Reading:
    head, _, body = value.partition(b"\n")
    arrays, start = {}, 0
    for name, (dtype, shape) in orjson.loads(head).items():
        size = int(np.prod(shape))
        arrays[name] = np.frombuffer(body, dtype, size, start).reshape(shape)
        start += arrays[name].nbytes
    features = {name.removeprefix(TAP): array for name, array in arrays.items() if name.startswith(TAP)}
    return Reading(key, features=features, **{n: a for n, a in arrays.items() if not n.startswith(TAP)})
