"""Operators that look at where a student fails, and ask for tasks that it would learn from; `written` reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.kinds.operator import (
    Child,
    Operator,
    Parent,
    Student,
    Teacher,
    dealt,
    drawn,
    numbered,
    of_domains,
    of_each,
    operator,
)

Gap = Annotated[float, Field(ge=0, lt=1)]

HARD = """A student got this task wrong:

{task}

It answered:

{said}

The right answer is {reference}. Write {count} new tasks that need the same skill and are as hard or harder, each with \
other content and other words. Begin each with its number, and write nothing else."""

REPORT = """A student answers tasks of several domains. So many of its answers are right:

{rates}

{examples}

Write {count} new tasks of the domain {domain}, from which the student would learn what it lacks, each with its right \
answer: as a JSON list of objects with the keys "prompt" and "reference", and nothing else."""


@operator(reads="answers", elicitation="feedback")
def hard(*, teacher: Teacher, student: Student, gap: Gap = 0.0, count: PositiveInt = 5) -> Operator:
    """Questions for `count` variants of a prompt that the student got wrong and the teacher right, which show the wrong
    answer; one of each prompt, in the domains where the teacher's pass rate is more than `gap` above the student's.

    Paper: Jiang et al. 2023, Lion (arXiv 2305.12870), its stages of discrimination and generation; from what a student
    got wrong, as LLM2LLM (Lee et al. 2024, arXiv 2403.15042).
    Differs: the verifier tells what is hard, in place of a model that rates both answers.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        taught, learnt = (_judged(parents, entry) for entry in (teacher, student))
        both = [prompt for prompt in taught if prompt in learnt]
        gaps: dict[str, list[float]] = {}
        for prompt in both:
            gaps.setdefault(learnt[prompt][0].domain, []).append(_passed(taught[prompt]) - _passed(learnt[prompt]))
        wide = {domain for domain, own in gaps.items() if fmean(own) > gap}
        for prompt in both:
            wrong = next((parent for parent in learnt[prompt] if not parent.right), None)
            if wrong and wrong.domain in wide and _passed(taught[prompt]):
                text = HARD.format(task=wrong.question, said=wrong.said, reference=wrong.reference, count=count)
                yield Child([wrong], {"prompt": text})

    return ask


@operator(reads="answers", elicitation="feedback")
def report(*, student: Student, rows: PositiveInt = 100, shown: PositiveInt = 3, count: PositiveInt = 5) -> Operator:
    """Questions for `count` labelled tasks of a domain, which report the student's pass rate in every domain and show
    up to `shown` each of its right answers, its wrong ones, and its hard negatives: wrong, and the same in most of at
    least two samples. `rows` of them, as many as can be of each domain in which it got something wrong.

    `written.tasks` reads the answers. The control at equal calls is `expansion.instruct`.

    Paper: Di Palo et al. 2024, Performance-Guided Knowledge Distillation (arXiv 2411.05045), algorithm 1.
    Differs: a question is about one domain, what the student is sure of is what its samples agree on, and earlier
    rounds are not shown. A round is an entry, and training stops by the parameters of `train`.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        answered = _judged(parents, student)
        first = of_domains([samples[0] for samples in answered.values()])
        rates = {domain: fmean(_passed(answered[p.prompt_id]) for p in own) for domain, own in first.items()}
        told = "\n".join(f"{domain}: {rates[domain]:.0%} of {len(own)} tasks" for domain, own in first.items())
        behind = [domain for domain, rate in rates.items() if rate < 1]
        sorts = {domain: _sorts([answered[p.prompt_id] for p in first[domain]]) for domain in behind}
        for domain, turn in dealt(rows, behind):
            chosen = {
                head: drawn(own, shown, seed, "report", domain, head, turn)
                for head, own in sorts[domain].items()
                if own
            }
            examples = "\n\n".join(f"{head}:\n{numbered(map(_told, own))}" for head, own in chosen.items())
            text = REPORT.format(rates=told, examples=examples, count=count, domain=domain)
            yield Child([parent for own in chosen.values() for parent in own], {"prompt": text})

    return ask


def _judged(parents: Sequence[Parent], entry: str) -> dict[str, list[Parent]]:
    """An entry's answers to each prompt, those that a verifier could judge."""
    return of_each([parent for parent in parents if parent.entry == entry and parent.right is not None])


def _passed(samples: Sequence[Parent]) -> float:
    return fmean(parent.right is True for parent in samples)


def _sorts(prompts: Sequence[Sequence[Parent]]) -> Mapping[str, list[Parent]]:
    """An answer to each prompt, by what it shows: the first, where all are right, or the commonest wrong one."""
    found: dict[str, list[Parent]] = {"Right": [], "Wrong": [], "Wrong, and sure of it": []}
    for samples in prompts:
        wrong = [parent for parent in samples if not parent.right]
        for answer, times in Counter(parent.answer for parent in wrong).most_common(1):
            sure = answer is not None and times > 1 and 2 * times > len(samples)
            shown = next(parent for parent in wrong if parent.answer == answer)
            found["Wrong, and sure of it" if sure else "Wrong"].append(shown)
        if not wrong:
            found["Right"].append(samples[0])
    return found


def _told(parent: Parent) -> str:
    said = [] if parent.right else [f"Said: {parent.answer or '(nothing)'}"]
    return "\n".join([parent.question, *said, f"Right: {parent.reference}"])
