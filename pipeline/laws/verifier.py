"""Laws of verifiers: a row names one by name alone, any text may come, and what cannot be read is never right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pipeline.core.methods import Method
from pipeline.kinds.verifier import OfArrays, Verifier
from pipeline.laws.law import arguments, build, must

# What models say: nothing, noise, long runs, other scripts, and answers in several forms.
TEXTS = (
    "", " ", "\n\n", "#", "# #", "the answer is 42", "6*7=42#42", "#### 42", "-1,200.50", "1e309", "0/0", "(B)", "B",
    "\\boxed{\\frac{1}{2}}", "\\boxed{50\\%}", "1/2", "8:30", "#### 2,125", "\\boxed{", "Caf\u00e9",
    "$x$", "a" * 5_000, "\u0661\u0662", "\U0001f600", "\x00\x1b[31m", "9" * 400,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A verifier with arguments."""

    method: Method
    arguments: Mapping[str, Any]
    verifier: Verifier

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])


def cases(method: Method) -> Iterator[Case]:
    """A verifier with several arguments."""
    return (Case(method, given, build(method, given)) for given in arguments(method, {}))


def it_can_be_named_alone(case: Case) -> None:
    """Every parameter has a default: a row may name it and no more. Give the others one."""
    needed = [name for name, field in case.method.arguments.model_fields.items() if field.is_required()]
    must(not needed, f"it cannot do without {', '.join(needed)}")


def any_text_is_read(case: Case) -> None:
    """Any text gives a short answer that is no empty text, or None, and always the same. Catch what cannot be read."""
    for text in TEXTS:
        first, second = case.verifier.parse(text), case.verifier.parse(text)
        must(first == second, f"{text[:40]!r} is read as {first!r} and then as {second!r}")
        must(first is None or (isinstance(first, str) and first != ""), f"{text[:40]!r} is read as {first!r}")


def nothing_equals_nothing(case: Case) -> None:
    """An empty answer is never right, nor is any where the reference cannot be read. Compare only what was read."""
    for text in TEXTS:
        must(not case.verifier.equal("", text), f"an empty answer is right for the reference {text[:40]!r}")


def an_answer_is_right_by_itself(case: Case) -> None:
    """A short answer is right where it is the reference: answers vote so. Let `equal` take what `parse` gives."""
    for answer in short_answers(case):
        must(case.verifier.equal(answer, answer), f"{answer[:40]!r} is not right by itself")


def two_answers_are_equal_both_ways(case: Case) -> None:
    """If one short answer is right for another, so is the other for it; with the trait `by_text` they are one text.
    Leave it out where that is not so."""
    by_text = case.method.traits.get("by_text")
    for one in short_answers(case):
        for other in short_answers(case):
            there, back = case.verifier.equal(one, other), case.verifier.equal(other, one)
            must(there == back, f"{one[:40]!r} and {other[:40]!r} are {there}, and the other way round {back}")
            must(not by_text or there == (one == other), f"{one[:40]!r} and {other[:40]!r} are two texts, and equal")


def what_is_read_of_a_reference_is_a_short_answer(case: Case) -> None:
    """What `read` says of a reference is a short answer, which is no empty text and right by itself, or None."""
    for text in TEXTS:
        said = getattr(case.verifier, "read", case.verifier.parse)(text)
        must(said is None or (isinstance(said, str) and said != ""), f"{text[:40]!r} is read as {said!r}")
        must(said is None or case.verifier.equal(said, said), f"{said!r} is not right by itself")


def short_answers(case: Case) -> list[str]:
    """What is read out of the texts, each once."""
    return sorted({answer for answer in map(case.verifier.parse, TEXTS) if answer is not None})


def right_is_yes_or_no(case: Case) -> None:
    """`equal` says True or False of any two texts. Catch what cannot be compared."""
    for answer in TEXTS:
        for reference in TEXTS[:12]:
            said = case.verifier.equal(answer, reference)
            must(isinstance(said, bool), f"{answer[:40]!r} and {reference!r} are {said!r}")


def nothing_is_better_than_the_truth(case: Case) -> None:
    """Of arrays none are judged better than those that would have been right, as the trait `better` says. Give the one
    that it is."""
    traits, judge, draw = case.method.traits, cast(OfArrays, case.verifier).judge, np.random.default_rng(0)
    truth, other = ({name: draw.random((12, 2), np.float32) for name in traits["judges"]} for _ in range(2))
    right, wrong = (judge(made, truth).metric for made in (truth, other))
    must(right >= wrong if traits["better"] == "higher" else right <= wrong, f"{right} for the truth, and {wrong}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (
        it_can_be_named_alone,
        any_text_is_read,
        nothing_equals_nothing,
        an_answer_is_right_by_itself,
        two_answers_are_equal_both_ways,
        what_is_read_of_a_reference_is_a_short_answer,
        right_is_yes_or_no,
    ),
    lambda case: True,
) | {nothing_is_better_than_the_truth: lambda case: isinstance(case.verifier, OfArrays)}
