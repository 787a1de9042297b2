"""Laws of evaluators: what is said of an item is of that item, and better answers are no worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.contracts import EVALS
from pipeline.core.methods import Method
from pipeline.kinds.backend import PLAIN, Answer, Backend, GenerateRequest, Reading, Sampling, Tokens, Want
from pipeline.kinds.evaluator import Evaluator, Exam, Item, Mark, measure_of
from pipeline.laws.law import arguments, build, must
from pipeline.tables import ids

STRANGERS = "text"  # what `law.arguments` makes up for the name of a domain
VOCABULARY, WIDTH = 7, 4


@dataclass(frozen=True)
class Case:
    """An evaluator with arguments."""

    method: Method
    arguments: dict[str, Any]
    evaluator: Evaluator

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    @property
    def beside(self) -> bool:
        return bool(self.method.traits.get("beside"))

    def marks(self, items: Sequence[Item], skill: float = 0.5) -> dict[str, Mark]:
        """Item to mark, of a model that is right so often; the other is right as often as not."""
        against = Made("other", items, 0.5) if self.beside else None
        found = list(self.evaluator(Exam(items, Made("own", items, skill), against)))
        must(len({mark.item.prompt_id for mark in found}) == len(found), "an item has more than one mark")
        return {mark.item.prompt_id: mark for mark in found}


def cases(method: Method) -> Iterator[Case]:
    """An evaluator with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


def items(n: int = 24) -> list[Item]:
    """Questions of two domains; every sixth has no reference, and every fifth no solution."""
    return [
        Item(
            ids.digest("item", i),
            [{"role": "user", "content": f"say {i}"}],
            ("d", STRANGERS)[i % 2],
            i % 3,
            "text.exact",
            None if i % 6 == 5 else f"{i}",
            None if i % 5 == 4 else f"it is {i}",
        )
        for i in range(n)
    ]


@dataclass
class Made:
    """A model that is made up: what it says of an item follows from its name, the item and its skill alone."""

    name: str
    items: Sequence[Item]
    skill: float
    folder: Path = Path()
    dtype: str = "float32"
    asked: dict[str, Item] = field(init=False)

    def __post_init__(self) -> None:
        self.asked = {item.prompt_id: item for item in self.items}

    def _answer(self, item: Item, sample: int) -> Answer:
        right = ids.draw(0, self.name, item.prompt_id, sample) < self.skill
        said = item.messages[0]["content"].removeprefix("say ") if right else f"{self.name}{sample % 2}"
        logprobs = [-ids.draw(1, self.name, item.prompt_id, sample)]
        return Answer(
            item.prompt_id, said, "stop", logprobs=logprobs, prompt_tokens=2, completion_tokens=1 + sample % 3
        )

    def answers(self, sampling: Sampling, k: int = 1, seed: int = 0) -> list[list[Answer]]:
        """Answers, some of them right."""
        return [[self._answer(item, sample) for sample in range(k)] for item in self.items]

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """The first answer to each, in another order."""
        yield from (self._answer(self.asked[request.prompt_id], 0) for request in reversed(requests))

    def tokens(self, texts: Sequence[str | None]) -> list[Tokens | None]:
        """Three tokens for a text."""
        return [
            Tokens(item.prompt_id, [1, 2, 3, 4], [1, 2, 3]) if text else None
            for item, text in zip(self.items, texts, strict=True)
        ]

    def read(self, tokens: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Probabilities that follow from who reads what, in another order."""
        for one in reversed(tokens):
            draw = np.random.default_rng(ids.seed_of(0, self.name, one.id))
            log_p_NV = np.log(draw.dirichlet(np.ones(VOCABULARY), len(one.positions)))
            order = np.argsort(-log_p_NV, 1)[:, : want.top_k]
            yield Reading(
                one.id,
                log_p_NV[:, 0].astype(np.float32),
                topk_ids=order.astype(np.int32),
                topk_logprobs=np.take_along_axis(log_p_NV, order, 1).astype(np.float32),
                embedding=draw.normal(size=WIDTH) if want.embedding else None,
            )

    def open(self) -> AbstractContextManager[Backend]:
        """Itself."""
        return nullcontext(self)


def every_mark_is_a_row(case: Case) -> None:
    """Metric and quantities are finite numbers, the metric may be None, and no item has two marks. Leave out what
    cannot be judged, or give it no metric."""
    measure = measure_of(case.method, case.method.arguments.model_validate(case.arguments).model_dump())
    must(bool(measure) and isinstance(measure, str), f"it measures {measure!r}")
    must(case.method.traits.get("better") in ("higher", "lower"), "its trait `better` is neither higher nor lower")
    asked = items()
    found = case.marks(asked)
    must(set(found) <= {item.prompt_id for item in asked}, "it judges an item that is not there")
    must(any(mark.metric is not None for mark in found.values()), "it judges nothing")
    for mark in found.values():
        numbers = [*mark.quantities.values(), *([] if mark.metric is None else [mark.metric])]
        must(all(math.isfinite(number) for number in numbers), f"it gives {numbers}")
    EVALS.rows(
        {
            "task": "t", "item_id": name, "prompt_id": name, "domain": "d", "model": "m", "metric": mark.metric,
            "measure": measure, "quantities": list(mark.quantities.items()), "finish_reason": mark.finish_reason,
        }
        for name, mark in found.items()
    )  # fmt: skip


def order_means_nothing(case: Case) -> None:
    """The items in another order have the same marks. Join answers and readings by item, and not by place."""
    asked = items()
    one, two = case.marks(asked), case.marks(asked[::-1])
    must(set(one) == set(two), "other items have marks")
    for name, mark in one.items():
        near = mark.metric == two[name].metric or math.isclose(mark.metric or 0.0, two[name].metric or 0.0)
        must(near, f"{name} has {two[name].metric} instead of {mark.metric}")


def better_answers_are_no_worse(case: Case) -> None:
    """A model that is always right has no worse marks in all than one that is always wrong, as `better` says."""
    known = [item for item in items() if item.reference is not None]
    means = []
    for skill in (1.0, 0.0):
        metrics = [mark.metric for mark in case.marks(known, skill).values() if mark.metric is not None]
        means.append(sum(metrics) / len(metrics))
    sign = 1 if case.method.traits["better"] == "higher" else -1
    must(sign * means[0] >= sign * means[1], f"right answers have {means[0]}, and wrong ones {means[1]}")


def without_references_nobody_is_right(case: Case) -> None:
    """Where no item has a reference, nothing is said of right and wrong. Let `Item.right` tell."""
    found = case.marks([replace(item, reference=None) for item in items()])
    said = [name for mark in found.values() for name in mark.quantities if name.endswith("right")]
    must(not said, f"it gives {said}")


Law = Callable[[Case], None]


def tried(case: Case) -> bool:
    """Whether a model that is made up can stand for the one that it is given."""
    return not case.method.traits.get("loads")


def untimed(case: Case) -> bool:
    """Whether it says the same twice."""
    return tried(case) and case.method.traits["measure"] != "seconds"


def of_answers(case: Case) -> bool:
    """Whether it is a matter of what is said, and not of probabilities."""
    return untimed(case) and "read" not in case.method.traits["needs"]


LAWS: dict[Law, Callable[[Case], bool]] = {
    every_mark_is_a_row: tried,
    order_means_nothing: untimed,
    better_answers_are_no_worse: of_answers,
    without_references_nobody_is_right: tried,
}
