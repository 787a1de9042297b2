"""Operators that ask about a prompt's aspects, which a student learns beside the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.kinds.operator import Child, Operator, Parent, drawn, numbered, of_domains, operator

QUESTIONS = """Here are {shown} tasks of one kind:

{tasks}

Write {count} questions that can be asked about every task of this kind and answered with yes or no, each about \
another aspect of it. Begin each with its number, and write nothing else."""

YES_NO = """Here is a task. Do not answer it:

{task}

{question} Answer with yes or no and nothing else."""


@operator(reads="prompts", elicitation="curation")
def questions(*, shown: PositiveInt = 5, count: PositiveInt = 50) -> Operator:
    """Questions for `count` aspects of a domain, each of which yes or no answers, one for each domain; `shown` of its
    prompts, drawn by chance, are shown.

    `written.prompts` reads the answers; those that are to be asked are then listed for `aspects.yes_no`.

    Paper: Lee et al. 2025, multi-aspect knowledge distillation (arXiv 2501.13341), the questions.
    Differs: it shows prompts in place of the names of classes, and no model chooses among the questions.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for domain, own in of_domains(parents).items():
            chosen = drawn(own, shown, seed, "aspects", domain)
            tasks = numbered(parent.question for parent in chosen)
            yield Child(chosen, {"prompt": QUESTIONS.format(shown=len(chosen), tasks=tasks, count=count)})

    return ask


@operator(reads="prompts", elicitation="labeling", verifiers=("text.line",))
def yes_no(*, questions: Annotated[tuple[str, ...], Field(min_length=1), "questions"]) -> Operator:
    """Every one of a list of questions about every prompt, answered with yes or no, as the verifier `text.line` reads.

    What is asked hangs on the prompt and the question alone, so its id, and what is known of it, stay when others are
    added to the list. The share of yes among k samples is the soft label.

    Paper: Lee et al. 2025, multi-aspect knowledge distillation (arXiv 2501.13341).
    Differs: words and samples in place of the logit of `yes`.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for parent in parents:
            for question in questions:
                text = YES_NO.format(task=parent.question, question=question)
                yield Child([parent], {"prompt": text, "verifier": "text.line"})

    return ask
