"""Operators that ask why an answer is given: for right answers and, as contrast, for wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.kinds.operator import Child, Operator, Parent, Unreadable, of_each, operator

RIGHT = """{task}

The answer is {answer}. Explain step by step how one comes to it, and end with it."""

WRONG = """{task}

A student answered {answer}, which is wrong. Write down step by step, as the student would, how one comes to that \
answer, and end with it. Do not say that it is wrong."""


@operator(reads="answers", elicitation="labeling")
def right() -> Operator:
    """Questions for the reasons of a right answer, one for each that a prompt got. They keep its reference, by
    which explanations that end elsewhere can be told.

    Paper: Wang et al. 2024, QCRD (arXiv 2405.13014): positive rationales.
    Differs: an answer that is known to be right is explained (as in STaR, arXiv 2203.14465), where the paper keeps the
    rationales whose answer the majority gives; those are `generate` and `consistency.agreement`.
    """
    return lambda parents, seed: _explained([parent for parent in parents if parent.right], RIGHT)


@operator(reads="answers", elicitation="labeling")
def wrong() -> Operator:
    """Questions for the reasons of a wrong answer, one for each that a prompt got. The column `operator`
    tells them from those of right answers, and an explanation that is found right is no negative.

    Paper: Wang et al. 2024, QCRD (arXiv 2405.13014): negative rationales.
    Differs: a model explains wrong answers, of a student or of itself, where the paper samples the student of some
    epochs ago; an answer in which none was read is left out.
    """
    return lambda parents, seed: _explained([parent for parent in parents if parent.right is False], WRONG)


def _explained(parents: Sequence[Parent], template: str) -> Iterator[Child | Unreadable]:
    """A question for each short answer that a prompt got, with what the prompt's answers are judged by."""
    for answers in of_each(parents).values():
        known: set[str] = set()
        for parent in answers:
            if parent.answer is None:
                yield Unreadable(parent, "no answer is read in it")
            elif parent.answer not in known:
                known.add(parent.answer)
                text = template.format(task=parent.question, answer=parent.answer)
                yield Child([parent], {"prompt": text, "verifier": parent.verifier, "reference": parent.reference})
