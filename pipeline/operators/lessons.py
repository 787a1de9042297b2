"""Operators that ask what is to be learnt from a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.kinds.operator import Child, Operator, Parent, of_each, operator

SUMMARY = """A student was given this task:

{task}

Its answer is wrong:

{said}

Write what is to be learnt from this for all tasks of the kind. Do not solve this one, and name nothing that stands in \
it alone. Write two parts:
Learning summary: how to think about such tasks, and what to avoid.
Supplementary knowledge: the facts and rules that one must know for them."""


@operator(reads="answers", elicitation="feedback")
def summary() -> Operator:
    """Questions for a learning summary and supplementary knowledge, one for each prompt that was answered wrong, which
    show the first wrong answer by its id; `from` says whose answers.

    Paper: Liao et al. 2025, NesyCD (arXiv 2409.13203): the demonstrations of hard cases.
    Differs: what is wrong, the prompt's verifier says, and no marker at the end of an answer.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for answers in of_each([parent for parent in parents if parent.right is False]).values():
            yield Child([answers[0]], {"prompt": SUMMARY.format(task=answers[0].question, said=answers[0].said)})

    return ask
