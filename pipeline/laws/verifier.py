"""Laws of verifiers: a row names one by name alone, any text may come, and what cannot be read is never right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.core.methods import Method
from pipeline.kinds.verifier import Verifier
from pipeline.laws.law import build, must

# What models say: nothing, noise, long runs, other scripts, and answers in several forms.
TEXTS = (
    "", " ", "\n\n", "#", "# #", "the answer is 42", "6*7=42#42", "#### 42", "-1,200.50", "1e309", "0/0", "(B)", "B",
    "\\boxed{\\frac{1}{2}}", "\\boxed{", "$x$", "a" * 5_000, "\u0661\u0662", "\U0001f600", "\x00\x1b[31m", "9" * 400,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A verifier."""

    method: Method
    verifier: Verifier

    def __str__(self) -> str:
        return self.method.name


def cases(method: Method) -> Iterator[Case]:
    """A verifier as a row names it: without arguments."""
    yield Case(method, build(method, {}))


def it_takes_no_parameters(case: Case) -> None:
    """It takes no parameters: a row names it and has no place for them. Write one function for each form."""
    must(not case.method.arguments.model_fields, f"it takes {', '.join(case.method.arguments.model_fields)}")


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
    """A short answer is right where it, or the text it was read out of, is the reference. Let `equal` read a reference
    as `parse` reads an answer."""
    for text in TEXTS:
        answer = case.verifier.parse(text)
        if answer is not None:
            right = case.verifier.equal(answer, answer) or case.verifier.equal(answer, text)
            must(right, f"{answer[:40]!r}, read out of {text[:40]!r}, is not right by either")


def right_is_yes_or_no(case: Case) -> None:
    """`equal` says True or False of any two texts. Catch what cannot be compared."""
    for answer in TEXTS:
        for reference in TEXTS[:12]:
            said = case.verifier.equal(answer, reference)
            must(isinstance(said, bool), f"{answer[:40]!r} and {reference!r} are {said!r}")


Law = Callable[[Case], None]
LAWS: dict[Law, Callable[[Case], bool]] = dict.fromkeys(
    (
        it_takes_no_parameters,
        any_text_is_read,
        nothing_equals_nothing,
        an_answer_is_right_by_itself,
        right_is_yes_or_no,
    ),
    lambda case: True,
)
