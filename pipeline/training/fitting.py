"""Whether rows are what a student can be trained on, before anything is: one refusal in a sentence for each that is
not, with what differs and how to mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import Refused
from pipeline.model.folder import context_of, hashes
from pipeline.networks.classifier import TOKENS
from pipeline.tables import manifest
from pipeline.tables.lists import lengths, values
from pipeline.tables.parquet import Scan

READ = ["example_id", "domain", "template_hash", "tokenizer_hash", "token_ids", "spans", "inputs"]


def trained_tokens(rows: Scan, student: Path, teacher: Path | None, of: str) -> dict[str, int]:
    """Domain -> how many tokens of it are trained on. Refuses rows that were cut or rendered with another form than a
    model's, whose mask is all or nothing, or that are not what their manifest says."""
    known = {"student": hashes(student / "tokenizer")}
    longest = {student: context_of(student)}
    if teacher is not None:
        known["teacher"] = hashes(teacher / "tokenizer")
        longest[teacher] = context_of(teacher)
    by_domain: Counter[str] = Counter()
    context = 0
    for folder in rows.folders:
        said = manifest.read(folder) if rows.table.name == "signals" else None
        names, count = [], 0
        for batch in Scan(rows.table, (folder,)).batches(READ, whole=False):
            _refuse_form(batch, known, student, of)
            _refuse_long(batch, longest, of)
            names.append(batch["example_id"])
            count += len(batch)
            sizes = _trained(batch)
            for domain, size in zip(batch["domain"].to_pylist(), sizes.tolist(), strict=True):
                by_domain[domain] += int(size)
            # What a student is shown beside the tokens, such as an image, needs no other context.
            shown = batch["inputs"].is_valid().to_numpy(zero_copy_only=False)
            context += int(np.where(shown, 1, lengths(batch["token_ids"]) - 1 - sizes).sum())
        if rows.table.name == "signals":
            _refuse_manifest(folder, said, names, count, known["student"], of)
    trained = by_domain.total()
    if trained == 0 and rows.count():
        raise Refused(f"data/{of} trains on nothing: no row's spans hold a token. Pack the answers again.")
    if trained and context <= 0:
        raise Refused(
            f"data/{of} trains on every token of every row, the prompts too: its spans are no mask. Pack the answers "
            f"again, so that only what is to be said is learnt."
        )
    return dict(sorted(by_domain.items()))


def _refuse_form(batch: pa.RecordBatch, known: dict[str, tuple[str, str]], student: Path, of: str) -> None:
    for role, (template, tokenizer) in known.items():
        for column, wanted, what in (("tokenizer_hash", tokenizer, "cut"), ("template_hash", template, "rendered")):
            # A live teacher reads the student's tokens, and needs no template.
            if what == "rendered" and role == "teacher":
                continue
            found = next((name for name in batch[column].unique().to_pylist() if name != wanted), None)
            if found is not None:
                by = "tokenizer" if what == "cut" else "chat template"
                raise Refused(
                    f"data/{of} was {what} with another {by} ({found[:8]}) than the {role}'s ({wanted[:8]}). Pack it "
                    f"with `student: {student.name}`"
                    + (", and use a teacher of the same vocabulary for a logit objective." if what == "cut" else ".")
                )


def _refuse_long(batch: pa.RecordBatch, longest: dict[Path, int | None], of: str) -> None:
    read = _read(batch)
    for model, context in longest.items():
        if context is not None and read.max(initial=0) > context:
            row = batch["example_id"][int(read.argmax())]
            raise Refused(
                f"data/{of}: example {row} has {read.max()} tokens, and {model.name} reads {context}. Take a model of "
                f"a longer context, or let the selection say `where: completion_tokens < ...`."
            )


def _read(batch: pa.RecordBatch) -> np.ndarray:
    """How many tokens of each row are read: its own, or those that it shows."""
    read, shown = lengths(batch["token_ids"]), batch["inputs"]
    each = values(shown)
    words = pc.equal(each.field("name"), TOKENS).to_numpy(zero_copy_only=False)
    if words.any():
        row = np.repeat(np.arange(len(batch)), lengths(shown))[words]
        np.maximum.at(read, row, [shape[0] for shape in each.field("shape").filter(pa.array(words)).to_pylist()])
    return read


def _trained(batch: pa.RecordBatch) -> np.ndarray:
    """How many tokens of each row are trained on."""
    spans = batch["spans"]
    inner = values(spans)
    sizes = inner.field("end").to_numpy() - inner.field("start").to_numpy()
    return np.bincount(np.repeat(np.arange(len(spans)), lengths(spans)), sizes, minlength=len(spans))


def _refuse_manifest(
    folder: Path,
    said: manifest.Manifest | None,
    names: list[pa.Array],
    count: int,
    form: tuple[str, str],
    of: str,
) -> None:
    again = f"run `dvc repro -sf probe@{folder.name}` to read them again"
    if said is None:
        raise Refused(f"data/{of}: {folder.name} has no {manifest.FILE}, which says whose signals these are: {again}.")
    for what, found, wanted in _unlike(said, names, count, form):
        raise Refused(f"data/{of}: the {manifest.FILE} of {folder.name} says {what} {found}, and {wanted}: {again}.")
    if said.again is None and count:
        raise Refused(
            f"data/{of}: no rows of {folder.name} were read a second time, so nothing shows that its signals "
            f"are the teacher's: {again}."
        )


def _unlike(
    said: manifest.Manifest, names: list[pa.Array], count: int, form: tuple[str, str]
) -> Iterator[tuple[str, object, str]]:
    """What a manifest says that is not so."""
    if said.rows != count:
        yield "rows:", said.rows, f"there are {count}; a part may be missing"
    elif said.examples != manifest.names_digest(names):
        yield "examples", said.examples[:8], "other ones are here"
    for what, found, own in (("tokenizer", said.tokenizer, form[1]), ("template", said.template, form[0])):
        if count and found != own:
            yield what, str(found)[:8], f"the student's is {own[:8]}"
