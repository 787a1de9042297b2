"""What an evaluator is: from a model and the items of a pool to a mark for each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.methods import Method, marker
from pipeline.kinds.backend import PLAIN, Answer, Backend, Messages, Reading, Sampling, Tokens, Want
from pipeline.kinds.verifier import answer_of, metric_of
from pipeline.tables.ids import Cell


@dataclass(frozen=True)
class Item:
    """A prompt of the pool, with what is known of its answer; the columns of `prompts`."""

    prompt_id: str
    messages: Messages
    domain: str
    level: int | None = None
    verifier: str | None = None
    reference: str | None = None
    solution: str | None = None
    truth: Cell | None = None

    def short(self, answer: Answer) -> str | None:
        """The short answer; one that was cut off has none."""
        return answer_of(self.verifier, answer.content) if answer.finish_reason == "stop" else None

    def right(self, answer: Answer) -> float | None:
        """1 for a right answer, 0 for a wrong one; None if nothing can tell."""
        return metric_of(self.verifier, self.short(answer), self.reference)


class Model(Protocol):
    """A model as an evaluator sees it."""

    name: str
    folder: Path

    @property
    def dtype(self) -> str:
        """What its weights are run in."""
        ...

    def answers(self, sampling: Sampling, k: int = 1, seed: int = 0) -> list[list[Answer]]:
        """k answers to every item, in the order of the items, through the memo."""
        ...

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        """Every item answered by a text, as the model reads it; None where there is no text. `id` is the item's."""
        ...

    def read(self, tokens: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """What the model says of the texts, in any order, through the memo."""
        ...

    def open(self) -> AbstractContextManager[Backend]:
        """The model itself, past the memo: for what is timed, or too large to keep."""
        ...


@dataclass(frozen=True)
class Exam:
    """Who is judged, on what, and beside whom: `against` is None in an entry of `evaluate`."""

    items: Sequence[Item]
    model: Model
    against: Model | None = None
    max_tokens: int = 64

    @property
    def greedy(self) -> Sampling:
        return Sampling(temperature=0.0, top_p=1.0, max_tokens=self.max_tokens)

    @property
    def other(self) -> Model:
        """The model that it is judged beside."""
        assert self.against is not None
        return self.against


@dataclass(frozen=True)
class Mark:
    """What is said of an item, or of one of its places: the metric, None where it does not apply, the numbers that it
    is made of, and of one answer what it was. `measure` is the verifier's, where it measures another thing."""

    item: Item
    metric: float | None
    quantities: Mapping[str, float] = field(default_factory=dict)
    content: str | None = None
    prediction: str | None = None
    confidence: float | None = None
    finish_reason: str = "stop"
    place: int | None = None
    measure: str | None = None
    outputs: Cell | None = None

    @property
    def target(self) -> str | None:
        """What would have been right."""
        reference = self.item.reference
        return reference if reference is None or self.place is None else reference.split("\n")[self.place]


class Evaluator(Protocol):
    """Judges a model."""

    def __call__(self, exam: Exam, /) -> Iterator[Mark]:
        """At most one mark per item, or per place of one that is judged by places; what cannot be judged has none, or
        one without a metric."""
        ...


def measure_of(method: Method, arguments: Mapping[str, Any]) -> str:
    """What the metric of an evaluator with these arguments measures."""
    measure = method.traits["measure"]
    return measure(arguments) if callable(measure) else measure


# Traits: `measure`, the name of what the metric measures, or a function from the arguments to it; `better`, `higher` or
# `lower`; `beside`, whether it looks at a second model, and so stands in `compare`; `needs`, what each of the models
# must give; `loads`, that it loads them itself, so that no made-up one can stand for them; `finds`, as everywhere.
evaluator = marker("evaluator")
