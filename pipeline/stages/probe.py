"""Probe: the teacher's distribution at each loss token.  Reads examples, writes signals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveFloat, PositiveInt

from pipeline.asking.read import read_all
from pipeline.contracts import EXAMPLES, SIGNALS
from pipeline.core.methods import find
from pipeline.core.run import How
from pipeline.core.stage import Input, StageParams, stage
from pipeline.errors import Refused
from pipeline.kinds.backend import Reading, Tokens, Want, card_of
from pipeline.model.folder import hashes
from pipeline.tables import ids
from pipeline.tables.compact import packed, plain
from pipeline.tables.lists import inside, joined, nested, split, whole
from pipeline.tables.manifest import Again, Manifest, names_digest
from pipeline.tables.parquet import Scan
from pipeline.tables.tensors import arrays, cell

# What a model says of each place, as columns of the table and fields of a reading.
NUMBERS = ("topk_logprobs", "tail_mass", "target_logprob")
# Rows that are read a second time, and at which precision.
SECOND = 64
WIDER = {"float16": "float32", "bfloat16": "float32", "float32": "float64", "float64": "float64"}
# How far apart two log-probabilities are of which one is no number.
LOST = 1e6


class Params(StageParams):
    of: str
    model: str
    top_k: PositiveInt
    taps: tuple[str, ...] = ()
    store: Literal["exact", "compact"] = "exact"
    temperatures: tuple[PositiveFloat, ...] = (1.0,)

    @property
    def further(self) -> tuple[float, ...]:
        """The temperatures besides 1, at which everything is stored."""
        return tuple(sorted({t for t in self.temperatures if t != 1}))

    def inputs(self) -> dict[str, Input]:
        return {"examples": Input(f"examples/{self.of}", EXAMPLES), "model": Input(f"models/{self.model}")}

    def output(self, instance: str) -> str:
        return f"signals/{self.of}/{instance}"

    def needs(self) -> dict[str, frozenset[str]]:
        return {self.model: self.want().needs()}

    def want(self) -> Want:
        """What is asked of the model at each place."""
        return Want(top_k=self.top_k, taps=self.taps, temperatures=self.further)


def sealed(params: Params, examples: Scan, model: Path, out: Path, how: How) -> None:
    """The manifest beside the signals, with a second reading of the first SECOND rows, whose ids are hashes and so an
    order by chance."""
    written = Scan(SIGNALS, (out,))
    heads = written.read(["example_id", "tokenizer_hash", "template_hash"])
    names = heads["example_id"].combine_chunks()
    card = card_of(model)
    Manifest(
        teacher=card["model_id"],
        dtype=card.get("dtype"),
        tokenizer=heads["tokenizer_hash"][0].as_py() if len(heads) else None,
        template=heads["template_hash"][0].as_py() if len(heads) else None,
        examples=names_digest([names]),
        rows=len(heads),
        top_k=params.top_k,
        store=params.store,
        temperatures=(1.0, *params.further),
        again=_again(params, written, names.sort().slice(0, SECOND), model, how) if len(heads) else None,
    ).write(out)


def _again(params: Params, written: Scan, chosen: pa.Array, model: Path, how: How) -> Again:
    """Read some rows without the memo, the last one first, at a wider precision where the model is loaded here."""
    batches = [b.filter(pc.is_in(b["example_id"], chosen)) for b in written.batches(SIGNALS.schema.names)]
    rows = pa.Table.from_batches(batches).sort_by([("example_id", "descending")])
    card = card_of(model)
    backend = find("backend", card["backend"])
    dtype = card.get("dtype")
    if "full_logits" in backend.traits["gives"]:
        # What is kept in four bits has no wider form.
        dtype = WIDER.get(dtype or "float32", dtype)
    kept = list(recorded(rows))
    # Numbered, because a backend may put them in the order of their ids.
    asked = [replace(tokens, id=f"{number:04d}") for number, (tokens, _) in enumerate(kept)]
    with backend.factory(folder=model, card={**card, "dtype": dtype}, how=how) as opened:
        found = {reading.id: reading for reading in opened.read(asked, Want(top_k=params.top_k))}
    told = [apart(one, found[tokens.id]) for (_, one), tokens in zip(kept, asked, strict=True)]
    distance_N, target_N = (np.concatenate(each) for each in zip(*told, strict=True))
    said = Again(
        rows=len(rows),
        places=len(distance_N),
        dtype=dtype,
        distance=float(f"{distance_N.mean():.6g}"),
        furthest=float(f"{distance_N.max():.6g}"),
        target=float(f"{target_N.max():.6g}"),
    )
    how.say(f"{said.rows} rows read again in {dtype or 'another order'}: {said.distance:.2g} apart in the mean")
    return said


def apart(one: Any, two: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of two readings of a sequence, at each place: the least total variation distance that the K outcomes and the rest
    of each allow, and the difference of the target's log-probability. A number that only one of them has is as far as
    can be; one that neither has is no difference."""
    p_NK, q_NK = np.exp(one.topk_logprobs.astype(float)), np.exp(two.topk_logprobs.astype(float))
    place_N1 = np.arange(len(p_NK))[:, None] << 32
    keys = (place_N1 + two.topk_ids).ravel()
    order = keys.argsort()
    at = ids.places((place_N1 + one.topk_ids).ravel(), keys[order]).reshape(p_NK.shape)
    # What the second does not list is there no likelier than the last that it lists.
    other_NK = np.where(at >= 0, q_NK.ravel()[order][at], np.minimum(p_NK, q_NK[:, -1:]))
    distance_N = (np.abs(p_NK - other_NK).sum(1) + np.abs(p_NK.sum(1) - other_NK.sum(1))) / 2
    target_N = np.abs(one.target_logprob.astype(float) - two.target_logprob)
    lost_N = np.isnan(one.target_logprob) & np.isnan(two.target_logprob)
    known = np.nan_to_num(distance_N, nan=1.0), np.nan_to_num(target_N, nan=LOST)
    return np.where(lost_N, 0, known[0]), np.where(lost_N, 0, known[1])


@stage(
    writes=SIGNALS,
    by="part",
    exactness="repeatable",
    imports=("torch", "transformers"),
    finds=("backend",),
    ends=sealed,
)
def probe(params: Params, examples: Scan, model: Path, how: How) -> Iterator[pa.RecordBatch]:
    """The K likeliest outcomes at each place, their log-probabilities and the mass of all others, at temperature 1;
    that mass at further temperatures, from which the rest follows there; and by tap what else the model computes."""
    rows = examples.read()
    if not len(rows):
        return
    known = hashes(model / "tokenizer")[1]
    strange = next((h for h in rows["tokenizer_hash"].unique().to_pylist() if h != known), None)
    if strange is not None:
        raise Refused(
            f"examples/{params.of} was cut with tokenizer {strange[:8]} and the model {params.model} reads tokenizer "
            f"{known[:8]}: its distribution would be over other tokens. A logit objective needs a teacher and a "
            f"student of one vocabulary; train this student with supervised.cross_entropy instead."
        )
    asked = tokens_of(rows)
    found = {reading.id: reading for reading in read_all(model, asked, how, params.want())}
    readings: list[Any] = [found[tokens.id] for tokens in asked]
    count = len(asked)
    unread = sum(not all(np.isfinite(getattr(r, name)).all() for name in NUMBERS) for r in readings)
    if unread:
        how.say(f"{unread} of {count} examples have log-probabilities that are no numbers; these are stored as null")
    signals = {
        "teacher_id": [card_of(model)["model_id"]] * count,
        "tail_mass": joined([r.tail_mass for r in readings], pa.float32()),
        "target_logprob": joined([r.target_logprob for r in readings], pa.float32()),
        "temperature": [1.0] * count,
        "tempered": [_tempered(params.further, r) if params.further else None for r in readings],
        "features": [cell(r.features) if r.features else None for r in readings],
    }
    top = [r.topk_ids for r in readings], [r.topk_logprobs for r in readings]
    if params.store == "compact":
        signals |= packed(*top)
    else:
        signals |= {"topk_ids": nested(top[0], pa.int32()), "topk_logprobs": nested(top[1], pa.float32())}
    yield SIGNALS.batch(**{name: rows[name] for name in rows.column_names}, **signals)


def _tempered(temperatures: Sequence[float], reading: Any) -> list[dict[str, Any]]:
    return [{"temperature": t, "tail_mass": reading.tempered[:, i]} for i, t in enumerate(temperatures)]


def tokens_of(rows: pa.Table) -> list[Tokens]:
    """What is read of each example: its tokens, and the places that are trained on."""
    tokens = split(whole(rows, "token_ids"))
    at_BT = inside(whole(rows, "spans"), max(map(len, tokens)))
    names, cells, prompts = (rows[name].to_pylist() for name in ("example_id", "inputs", "prompt_id"))
    given = zip(names, tokens, map(np.flatnonzero, at_BT), cells, prompts, strict=True)
    return [Tokens(*one) for one in given]


def recorded(signals: pa.Table) -> Iterator[tuple[Tokens, Reading]]:
    """What a model said of each example, as a table of signals has it: for the memo, which then need not ask again."""
    if not len(signals):
        return
    signals = plain(signals)
    columns = {name: signals[name].to_pylist() for name in ("topk_ids", *NUMBERS)}
    tempered = signals["tempered"].to_pylist()
    for i, (tokens, features) in enumerate(zip(tokens_of(signals), signals["features"].to_pylist(), strict=True)):
        given = {n: np.array(rows[i], np.float32 if n in NUMBERS else np.int32) for n, rows in columns.items()}
        taps = {name: np.asarray(array) for name, array in arrays(features or []).items()}
        tails = [told["tail_mass"] for told in tempered[i] or ()]
        further = np.stack([np.array(tail, np.float32) for tail in tails], 1) if tails else None
        yield tokens, Reading(tokens.id, features=taps, tempered=further, **given)
