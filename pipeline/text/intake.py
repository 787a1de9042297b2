"""A given row becomes a prompt, or is named as bad."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import Refused
from pipeline.kinds.source import BadRow, GivenRow
from pipeline.kinds.verifier import answer_of, metric_of, reference_of
from pipeline.tables import ids, tensors
from pipeline.tables.pictures import pixels
from pipeline.text.columns import NoColumn, filled, look, number_text
from pipeline.text.conversations import NotAConversation, conversation
from pipeline.text.ngrams import plain

# Our names of what a row may hold; `columns:` maps them to the user's.
Key = Literal[
    "messages", "prompt", "system", "conversations", "instruction", "input", "output", "completion", "history", "id",
    "domain", "level", "group", "verifier", "reference", "solution",
]  # fmt: skip


# Characters of a bad row that are kept for the user.
SHOWN = 2_000


class Unusable(ValueError):
    """A row that cannot be used; the text says why."""


@dataclass
class Intake:
    """Turns given rows into rows of the table `prompts`, one after the other, and remembers which it has seen.

    `columns` maps our names to the user's, `arrays` those of inputs to the columns that hold them, and `template` makes
    the prompt of several; domain, verifier and system stand for rows that have none. The last turn of a row that ends
    with an answer is its solution, or its reference. `rewritten` are the places of references that the verifier reads
    in another form than they were given in, `judged` those of solutions, to whether the verifier finds them right,
    `repeated` those of rows that repeat an earlier one.
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
    seen_prompts: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    seen_ids: set[str] = field(default_factory=set)
    rewritten: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    judged: dict[str, bool] = field(default_factory=dict)

    def read(self, given: GivenRow) -> dict[str, object] | BadRow | None:
        """The prompt in a given row, or what is wrong with it; nothing if it repeats one and the first is kept."""
        try:
            return self._prompt(self._renamed(given.columns), given.source)
        except (Unusable, NotAConversation, NoColumn) as error:
            shown = json.dumps(given.columns, default=str)
            return BadRow(given.source, str(error), shown[:SHOWN])

    def _renamed(self, given: Mapping[str, object]) -> Mapping[str, object]:
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
        defaults = {"system": self.system, "verifier": self.verifier}
        row = {**row, **{k: v for k, v in defaults.items() if row.get(k) is None}}
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
        prompt: dict[str, object] = {
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
            _once(self.seen_ids, str(row["id"]), "the id")
        if reference != given:
            self.rewritten.append(place)
        right = metric_of(verifier, answer_of(verifier, solution), reference)
        if solution is not None and right is not None:
            self.judged[place] = right == 1
        return prompt

    def _level(self, row: Mapping[str, object]) -> int | None:
        """The level; a column of this name that holds none and that nobody named is the user's own."""
        named = "level" in self.columns or not isinstance(row.get("level"), str)
        return _whole(row, "level") if named else None

    def _repeats(self, prompt_id: str, place: str, reference: str | None) -> bool:
        """Whether an earlier row asks the same; refuses the row that does, where it is not the first that is kept."""
        if prompt_id not in self.seen_prompts:
            self.seen_prompts[prompt_id] = place, reference
            return False
        first, known = self.seen_prompts[prompt_id]
        if known != reference:
            raise Unusable(
                f"the prompt is the same as in {first}, which has another reference ({known!r}, not {reference!r})"
            )
        if self.on_repeat == "refuse":
            raise Unusable("the prompt is the same as in an earlier row; `on_repeat: first` leaves such rows out")
        self.repeated.append(place)
        return True


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


def _check_unicode(prompt: Mapping[str, object]) -> None:
    """JSON can spell half a character, which no file can hold."""
    try:
        json.dumps(prompt, ensure_ascii=False, default=lambda data: "").encode("utf-8")
    except UnicodeEncodeError as error:
        raise Unusable("a text is not valid Unicode (half of a surrogate pair)") from error


def _once(seen: set[str], key: str, what: str) -> None:
    if key in seen:
        raise Unusable(f"{what} is the same as in an earlier row")
    seen.add(key)
