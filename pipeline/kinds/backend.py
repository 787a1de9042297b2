"""What a backend is asked and what it answers.

A backend is opened from a model folder as a context manager and has two verbs over many requests: `generate` and
`read`. Each answer carries its request's id; order means nothing. Batching, retries and rate limits stay inside.
What a backend cannot do it does not list in `gives`, and `plan` refuses what would need it.

Structured answers: the form that an answer must have, and whether one has it.

Where an engine can be held to a form it is; an answer is looked at in any case, because a server may ignore what it
was asked.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from pipeline.core import identity
from pipeline.core.methods import available, find, marker, module_of
from pipeline.core.run import How
from pipeline.tables import ids
from pipeline.tables.ids import Cell

Messages = Sequence[dict[str, str]]
# What a model that is run in this process gives; `form` is its folder `tokenizer/`.
LOCAL = ("form", "generate", "read", "token_logprobs", "topk_logprobs", "full_logits", "hidden_states", "gradients")
# Of these, what no server gives.
WITHIN = frozenset({"hidden_states", "gradients"})


@dataclass(frozen=True)
class Sampling:
    """How to draw an answer. Temperature 0 is greedy."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()
    structured: Structured | None = None

    def until_stop(self, text: str) -> tuple[str, bool]:
        """A text up to its first stop string, and whether there was one."""
        cut = min((text.index(stop) for stop in self.stop if stop in text), default=None)
        return text[:cut], cut is not None

    def content(self) -> dict[str, Any]:
        """Every field as JSON-able content, for ids."""
        form = None if self.structured is None else self.structured.model_dump(mode="json")
        return {**self.__dict__, "structured": form}


@dataclass(frozen=True)
class GenerateRequest:
    """One sample of one prompt. The seed is this sample's own: no two requests share their noise.

    `request_id` is its key in the memo, which holds the code that computes the answer here. `sample_id` does not: its
    answer's row is named after it, so that an edit that changes no answer changes no row's name.

    `solution` is the answer that came with the data, if one did; only recorded.solutions looks at it. `earlier_id` is
    the id that this request had before ids held the rendered prompt, and `prompt_tokens` how many tokens that has.
    `inputs` are the arrays that are asked about; a backend that is `shown` none gets no such request. `truth` is, as
    `solution`, the right answer that came with the data, where that is no text.
    """

    request_id: str
    prompt_id: str
    messages: Messages
    sample: int
    seed: int
    solution: str | None = None
    sample_id: str = ""
    earlier_id: str | None = None
    prompt_tokens: int | None = None
    inputs: Cell | None = None
    truth: Cell | None = None


@dataclass(frozen=True)
class Answer:
    """What came back for one request; `error` is set, and content null, if it failed for good.

    A log-probability is null where the model gave none that is a finite number; `asking` sees to it.

    `attempts` is set by `asking` alone; `fingerprint` is what a server says of its build (`system_fingerprint`),
    `endpoint` which of several addresses answered.
    `outputs` are the arrays that were answered, where an answer is no text; the text then says what they are.
    """

    request_id: str
    content: str | None
    finish_reason: str
    reasoning: str | None = None
    token_ids: list[int] | None = None
    logprobs: Sequence[float | None] | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    attempts: int = 1
    fingerprint: str | None = None
    outputs: Cell | None = None
    endpoint: str | None = None


@dataclass(frozen=True)
class Tokens:
    """A tokenised conversation to be read, and the positions [N] whose tokens are asked about; `inputs` is the cell of
    arrays that it is about, if there is one, and `prompt_id` whose it is, for the memo."""

    id: str
    token_ids: Sequence[int] | np.ndarray
    positions: Sequence[int] | np.ndarray
    inputs: Cell | None = None
    prompt_id: str | None = None

    def asked(self) -> tuple[list[int], list[int]]:
        """The tokens and the positions as lists, for ids."""
        return np.asarray(self.token_ids).tolist(), np.asarray(self.positions).tolist()


@dataclass(frozen=True)
class Descent:
    """One step of gradient descent on the sequence that is read, at this rate, and what is read before and after it."""

    rate: float
    target: tuple[Tokens, ...] = ()

    @functools.cached_property
    def id(self) -> str:
        """All that determines it."""
        texts = [(*t.asked(), *ids.of_arrays(t.inputs)) for t in self.target]
        return ids.digest("descent", self.rate, *texts)


@dataclass(frozen=True)
class Want:
    """What is asked of a reading besides the log-probability of each asked token: the K likeliest, the mass of all
    others at further temperatures, the pooled states, what the model computes on the way (taps, as in
    `kinds/objective.py`), the gradient of the mean loss in so many numbers, or the direction that AdamW would take by
    it (`adam`), and what a step along the gradient does."""

    top_k: int = 0
    embedding: bool = False
    taps: tuple[str, ...] = ()
    gradient: int = 0
    adam: bool = False
    descent: Descent | None = None
    temperatures: tuple[float, ...] = ()

    @property
    def studies(self) -> bool:
        """Whether the model is to learn from the sequence, if only for a moment."""
        return bool(self.gradient) or self.descent is not None

    def needs(self) -> frozenset[str]:
        """What a backend must give for it."""
        asked = {
            "read": True,
            "topk_logprobs": self.top_k,
            # The mass of all others at a temperature depends on each of them.
            "full_logits": self.temperatures,
            "hidden_states": self.embedding or self.taps,
            "gradients": self.studies,
            "moments": self.adam,
        }
        return frozenset(name for name, wanted in asked.items() if wanted)


PLAIN = Want()


@dataclass(frozen=True)
class Reading:
    """What a model says about the N asked tokens of one sequence; only what was wanted is set.

    target_logprob [N], topk_ids and topk_logprobs [N, K] (likeliest first), tail_mass [N], tempered
    [N, temperatures] (the mass of all others at each), embedding [D] (mean of the
    last layer's states at the asked tokens), features by tap [N, D], gradient [W] (see `model/gradients.py`), descent
    [2] (the mean loss on its target before the step and after it).
    """

    id: str
    target_logprob: np.ndarray
    topk_ids: np.ndarray | None = None
    topk_logprobs: np.ndarray | None = None
    tail_mass: np.ndarray | None = None
    tempered: np.ndarray | None = None
    embedding: np.ndarray | None = None
    gradient: np.ndarray | None = None
    descent: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


class Backend(Protocol):
    """An opened model.

    One whose answers arrive several at once may also have `arrivals`, like `generate` but in lists: what is in one list
    is kept together or not at all.
    """

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once, in any order."""
        ...

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once, in any order. Log-probabilities are natural, at temperature 1."""
        ...


def card_of(folder: Path) -> dict[str, Any]:
    """The content of a model folder's `model.json`: `backend`, `model_id`, and what else its origin wrote."""
    return json.loads((folder / "model.json").read_text("utf-8"))


def engine_of(card: dict[str, Any], *, code: bool = True) -> str:
    """What else than the model decides its answers: the backend, the keys of the card that it declares as
    `shaped_by`, and, where it `computes` the answers itself, the `code` that does."""
    method = find("backend", card["backend"])
    shaped_by = {key: card.get(key) for key in method.traits.get("shaped_by", ())}
    own = None
    if code and method.traits.get("computes"):
        found = (module_of(kind, name) for kind in method.finds for name in available(kind))
        own = identity.fingerprint([method.module, *found])
    return ids.digest("engine", card["backend"], shaped_by, own)


def computed_here(card: dict[str, Any]) -> bool:
    """Whether this machine can compute a model's answers again; otherwise each was paid for, or received."""
    return bool(find("backend", card["backend"]).traits.get("computes"))


def open_model(folder: Path, how: How) -> AbstractContextManager[Backend]:
    """Open the model of a folder with the backend that its card names."""
    card = card_of(folder)
    return find("backend", card["backend"]).factory(folder=folder, card=card, how=how)


class Structured(BaseModel):
    """A JSON schema, a regular expression for the whole answer, or a list of answers to choose from: one of them.

    A sampled answer without the form is asked for again, with another seed, up to `attempts` times in all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = Field(default=None, min_length=1)
    attempts: PositiveInt = 4

    @model_validator(mode="after")
    def _one(self) -> Structured:
        if sum(value is not None for value in (self.json_schema, self.regex, self.choice)) != 1:
            raise ValueError("takes one of json_schema, regex and choice")
        return self

    @field_validator("json_schema")
    @classmethod
    def _a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            try:
                jsonschema.validators.validator_for(schema).check_schema(schema)
            except jsonschema.SchemaError as error:
                raise ValueError(f"is not a JSON schema: {error.message}") from error
        return schema

    @field_validator("regex")
    @classmethod
    def _a_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from error
        return pattern

    def beyond(self) -> str | None:
        """What of its expressions no engine can be held to, since they are run as automata; None if nothing."""
        patterns = [self.regex] if self.regex is not None else list(_patterns(self.json_schema))
        return next((f"{why} in {pattern}" for pattern in patterns if (why := _beyond(pattern))), None)

    def fault(self, content: str) -> str | None:
        """Why an answer does not have the form, in one line; None if it has it."""
        if self.choice is not None:
            return None if content in self.choice else f"it is none of {', '.join(self.choice)}"
        if self.regex is not None:
            return None if re.fullmatch(self.regex, content) else f"it does not match {self.regex}"
        try:
            jsonschema.validate(json.loads(content), self.json_schema)
        except json.JSONDecodeError as error:
            return f"it is not JSON: {error}"
        except jsonschema.ValidationError as error:
            return f"it does not keep to the schema at {error.json_path}: {error.message[:200]}"
        return None


# What stands in a regular expression: a class of characters, an escaped one, and what is more than a group.
PIECE = re.compile(
    r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\(?P<escape>.)|(?P<group>\(\?(?:<?[=!]|P=|\(|>|[a-zA-Z]*(?:-[a-z]+)?[:)]))"
    r"|[*+?}](?P<possessive>\+)",
    re.DOTALL,
)
GROUPS = {
    "(?=": "a look-ahead", "(?!": "a look-ahead", "(?<=": "a look-behind", "(?<!": "a look-behind",
    "(?P=": "a back-reference", "(?(": "a condition", "(?>": "an atomic group", "(?:": None,
}  # fmt: skip
ESCAPES = {**dict.fromkeys("123456789", "a back-reference"), **dict.fromkeys("bB", "a word boundary"),
           **dict.fromkeys("AZ", "an anchor")}  # fmt: skip


def _beyond(pattern: str) -> str | None:
    """What of a regular expression is no regular expression in the narrow sense, in words."""
    for piece in PIECE.finditer(pattern):
        found = ESCAPES.get(piece["escape"] or "") or GROUPS.get(piece["group"] or "(?:", "a flag")
        if found or piece["possessive"]:
            return f"{found or 'a possessive repeat'} ({piece[0]})"
    return None


def _patterns(schema: Any) -> Iterator[str]:
    """The regular expressions of a JSON schema."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            elif key == "patternProperties" and isinstance(value, Mapping):
                yield from value
            yield from _patterns(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _patterns(one)


backend = marker("backend")
