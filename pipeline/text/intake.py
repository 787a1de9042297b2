"""A given row becomes a prompt, or is named as bad."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any, Literal

import numpy as np
import orjson
import pyarrow as pa

from pipeline.errors import Refused
from pipeline.kinds.source import BadRow, GivenRow
from pipeline.kinds.verifier import answer_of, metric_of, reference_of
from pipeline.tables import ids, tensors
from pipeline.tables.pictures import pixels
from pipeline.tables.seen import Seen
from pipeline.text.columns import NoColumn, filled, look, number_text
from pipeline.text.conversations import NotAConversation, conversation
from pipeline.text.ngrams import plain

# Our names of what a row may hold; `columns:` maps them to the user's.
Key = Literal[
    "messages", "prompt", "system", "conversations", "instruction", "input", "output", "completion", "history", "id",
    "domain", "level", "group", "verifier", "reference", "solution",
]  # fmt: skip


# Characters of a bad row that are kept for the user, and places of what is told of many rows.
SHOWN, PLACES = 2_000, 5


class Unusable(ValueError):
    """A row that cannot be used; the text says why."""


@dataclass
class Places:
    """The first of many places, and their number."""

    n: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.n += 1
        if self.n <= PLACES:
            self.first.append(place)

    def note(self, of: int) -> dict[str, object]:
        """What a record says of them."""
        return {"n": self.n, "of": of, "at": self.first}

    def __str__(self) -> str:
        return ", ".join(self.first) + (f" and {self.n - PLACES} more" if self.n > PLACES else "")


@dataclass
class Intake:
    """Turns given rows into rows of the table `prompts`, one after the other, and remembers which it has seen; what a
    later row may have to be told of one is in `file`, from its start.

    `columns` maps our names to the user's, `arrays` those of inputs to the columns that hold them, and `template` makes
    the prompt of several; domain, verifier and system stand for rows that have none. The last turn of a row that ends
    with an answer is its solution, or its reference. `rewritten` are the places of references that the verifier reads
    in another form than they were given in, `wrong` those of the solutions that it finds wrong, of so many that it has
    `judged`, `repeated` those of rows that repeat an earlier one.
    """

    columns: Mapping[Key, str]
    domain: str
    verifier: str | None
    system: str | None
    max_prompt_chars: int
    template: str | None = None
    last_turn: Literal["solution", "reference"] = "solution"
    on_repeat: Literal["refuse", "first"] = "refuse"
    arrays: Mapping[str, str] = field(default_factory=dict)
    file: IO[bytes] = field(default_factory=BytesIO)
    prompts: Seen = field(default_factory=Seen)
    names: Seen = field(default_factory=Seen)
    rewritten: Places = field(default_factory=Places)
    repeated: Places = field(default_factory=Places)
    judged: int = 0
    written: int = 0
    wrong: Places = field(default_factory=Places)

    def read(self, given: GivenRow) -> dict[str, object] | BadRow | None:
        """The prompt in a given row, or what is wrong with it; nothing if it repeats one and the first is kept."""
        try:
            return self._prompt(self._renamed(given.columns), given.source)
        except (Unusable, NotAConversation, NoColumn) as error:
            shown = json.dumps(given.columns, default=str)
            return BadRow(given.source, str(error), shown[:SHOWN])

    def _renamed(self, given: Mapping[str, object]) -> Mapping[str, object]:
        if not self.columns and not self.arrays and self.template is None:
            return given
        try:
            renamed: dict[str, object] = {ours: look(given, theirs) for ours, theirs in self.columns.items()}
            if self.arrays:
                renamed["inputs"] = {ours: _array(look(given, theirs), theirs) for ours, theirs in self.arrays.items()}
        except NoColumn as error:
            raise Unusable(f"{error}, which `columns:` or `arrays:` names") from error
        if self.template is not None:
            renamed["prompt"] = filled(self.template, given)
        shape = {"messages", "conversations", "prompt", "instruction"}
        # A column that the user names as the prompt stands, whatever other shape the row could be read in.
        others = {k: v for k, v in given.items() if not (shape & renamed.keys() and k in shape)}
        return {**others, **renamed}

    def _prompt(self, row: Mapping[str, object], place: str) -> dict[str, object] | None:
        for name, usual in (("system", self.system), ("verifier", self.verifier)):
            if usual is not None and row.get(name) is None:
                row = {**row, name: usual}
        inputs, truth = _cell(row, "inputs"), _cell(row, "truth")
        messages, solution = conversation(row, wordless=inputs is not None)
        if self.last_turn == "reference" and row.get("reference") is None:
            row, solution = {**row, "reference": solution}, None
        length = sum(len(m["content"]) for m in messages)
        if length > self.max_prompt_chars:
            raise Unusable(f"the prompt has more than max_prompt_chars {self.max_prompt_chars} characters")
        verifier = _text(row, "verifier")
        given = _text(row, "reference")
        reference = _as_read(verifier, given)
        prompt_id = ids.prompt_id(messages, inputs)
        prompt: dict[str, Any] = {
            "prompt_id": prompt_id,
            "messages": messages,
            "domain": _text(row, "domain") or self.domain,
            "source": place,
            "group": _text(row, "group"),
            "level": self._level(row),
            "verifier": verifier,
            "reference": reference,
            "solution": solution,
            "inputs": inputs,
            "truth": truth,
            "elicitation": "labeling",
        }
        _check_unicode(prompt)
        if self._repeats(prompt_id, place, reference):
            return None
        if row.get("id") is not None:
            self._once(str(row["id"]))
        if reference != given:
            self.rewritten.add(place)
        right = metric_of(verifier, answer_of(verifier, solution), reference)
        if solution is not None and right is not None:
            self.judged += 1
            if right != 1:
                self.wrong.add(place)
        return prompt

    def _level(self, row: Mapping[str, object]) -> int | None:
        """The level; a column of this name that holds none and that nobody named is the user's own."""
        named = "level" in self.columns or not isinstance(row.get("level"), str)
        return _whole(row, "level") if named else None

    def _repeats(self, prompt_id: str, place: str, reference: str | None) -> bool:
        """Whether an earlier row asks the same; refuses the row that does, where it is not the first that is kept."""
        key, _ = ids.halves(prompt_id)
        at = self.prompts.first(key, self.written)
        if at is None:
            self.written += self.file.write(orjson.dumps([prompt_id, place, reference]) + b"\n")
            return False
        self.file.seek(at)
        asked, first, known = orjson.loads(self.file.readline())
        self.file.seek(self.written)
        if asked != prompt_id:
            return False
        if known != reference:
            raise Unusable(
                f"the prompt is the same as in {first}, which has another reference ({known!r}, not {reference!r})"
            )
        if self.on_repeat == "refuse":
            raise Unusable("the prompt is the same as in an earlier row; `on_repeat: first` leaves such rows out")
        self.repeated.add(place)
        return True

    def _once(self, name: str) -> None:
        """Refuse a row whose own id an earlier one has."""
        key, rest = ids.halves(ids.digest(name))
        if self.names.first(key, rest) == rest:
            raise Unusable("the id is the same as in an earlier row")


def name_groups(rows: Sequence[dict[str, Any]]) -> None:
    """A row without a group is its own: all rows that differ in case and spacing only, and are about the same arrays,
    share it."""
    alone = [row for row in rows if row["group"] is None]
    asked = ["\n".join(m["content"] for m in row["messages"] if m["role"] != "system") for row in alone]
    for row, text in zip(alone, plain(pa.array(asked, pa.string())).to_pylist(), strict=True):
        row["group"] = ids.group(text, row["inputs"])


def _text(row: Mapping[str, object], column: str) -> str | None:
    value = row.get(column)
    # A reference is often a number, and what it says is plain.
    if column == "reference" and (number := number_text(value)) is not None:
        return number
    if value is not None and not isinstance(value, str):
        raise Unusable(f"{column} must be text, not {type(value).__name__}")
    return value


def _array(value: object, column: str) -> np.ndarray | bytes:
    """What stands in a user's column as an array: one of numbers, lists of them, or a picture's bytes, also as datasets
    keep it (`bytes` and `path`)."""
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
        value = value["bytes"]
    if isinstance(value, np.ndarray | bytes):
        return value
    if not isinstance(value, list):
        raise Unusable(f"the column {column!r} holds {type(value).__name__} and no array; `files.pictures` reads files")
    try:
        made = np.array(value)
    except ValueError as error:
        raise Unusable(f"the column {column!r} holds lists of unequal lengths, which are no array") from error
    return made.astype(np.float32) if made.dtype == np.float64 else made


def _cell(row: Mapping[str, object], column: str) -> list[dict[str, object]] | None:
    """The arrays of a row, name -> array or the bytes of a picture; a column of this name that holds none is the user's
    own and no matter of ours."""
    value = row.get(column)
    if not isinstance(value, Mapping) or not any(isinstance(v, np.ndarray | bytes) for v in value.values()):
        return None
    strange = [repr(name) for name, v in value.items() if not isinstance(v, np.ndarray | bytes)]
    if strange:
        raise Unusable(f"{column} must be arrays, and {', '.join(strange)} is not one")
    try:
        cell = tensors.cell(value)
        for picture in filter(lambda v: isinstance(v, bytes), value.values()):
            pixels(picture)
        return cell
    except Refused as error:
        raise Unusable(f"{column}: {error}") from error


def _whole(row: Mapping[str, object], column: str) -> int | None:
    value = row.get(column)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise Unusable(f"{column} must be a whole number, not {type(value).__name__}")
    if value is not None and abs(value) >= 2**63:
        raise Unusable(f"{column} is beyond 64 bits")
    return value


def _as_read(verifier: str | None, reference: str | None) -> str | None:
    """The reference as the verifier reads it, so that `... #### 42` becomes `42`."""
    if verifier is None or reference is None:
        return reference
    try:
        read = reference_of(verifier, reference)
    except Refused as error:
        raise Unusable(str(error)) from error
    if read is None:
        raise Unusable(f"{verifier} cannot read the reference as one whole answer")
    return read


def _check_unicode(prompt: Mapping[str, Any]) -> None:
    """JSON can spell half a character, which no file can hold."""
    texts = [message["content"] for message in prompt["messages"]]
    texts += [value for value in prompt.values() if isinstance(value, str)]
    if cells := [prompt[name] for name in ("inputs", "truth") if prompt[name] is not None]:
        texts.append(json.dumps(cells, ensure_ascii=False, default=lambda data: ""))
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unusable("a text is not valid Unicode (half of a surrogate pair)") from error
