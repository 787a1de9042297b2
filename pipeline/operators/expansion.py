"""Operators that ask a model for more prompts like those that there are; `written` reads what it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import PositiveInt

from pipeline.kinds.operator import Child, Operator, Parent, dealt, drawn, numbered, of_domains, operator
from pipeline.tables import ids

INSTRUCT = """Here are {shown} tasks:

{tasks}

Write {count} new tasks of the same kind, each with other content and other words. Begin each with its number, and \
write nothing else."""

# The ways in which Evol-Instruct rewrites a prompt, in words of ours.
WAYS = {
    "constrain": "Add one more condition or requirement to it",
    "deepen": "Ask for more depth and breadth where it asks for something",
    "concretise": "Put something more specific in the place of what is general in it",
    "reason": "Let it need several steps of reasoning where one or two would do",
    "complicate": "Add input that has to be worked with, such as data, a table or a piece of code",
    "broaden": "Write a wholly new one of the same field, as long and as hard, about something that is rarer",
}
EVOLVE = """Here is a task:

{task}

{way}. The new task must be one that a person can understand and answer, and at most {words} words longer. Write the \
new task and nothing else."""


@operator(reads="prompts", elicitation="expansion")
def instruct(*, rows: PositiveInt = 100, shown: PositiveInt = 3, count: PositiveInt = 5) -> Operator:
    """Questions that show `shown` prompts of one domain, drawn by chance, and ask for `count` new ones; `rows` of them,
    as many of each domain as can be.

    Paper: Wang et al. 2023, Self-Instruct (arXiv 2212.10560), section 2.2.
    Differs: prompts of one domain are shown together, so that what is made of the answer has a domain; those that a
    model wrote are not mixed in. Novelty by ROUGE-L is a rule of `curate`.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        domains = of_domains(parents)
        for domain, turn in dealt(rows, domains):
            chosen = drawn(domains[domain], shown, seed, "instruct", domain, turn)
            tasks = numbered(parent.question for parent in chosen)
            yield Child(chosen, {"prompt": INSTRUCT.format(shown=len(chosen), tasks=tasks, count=count)})

    return ask


@operator(reads="prompts", elicitation="expansion")
def evolve(
    *, way: Literal["any", "constrain", "deepen", "concretise", "reason", "complicate", "broaden"] = "any",
    words: PositiveInt = 20,
) -> Operator:  # fmt: skip
    """Questions that ask to rewrite each prompt in one of six ways, which is drawn if it is `any`.

    Paper: Xu et al. 2024, WizardLM (arXiv 2304.12244), section 3: five ways into depth and one into breadth.
    Differs: a turn is one entry; several are a chain of entries. What failed to evolve is for `curate` to drop.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for parent in parents:
            drawn = list(WAYS)[ids.seed_of(seed, "evolve", parent.id) % len(WAYS)] if way == "any" else way
            text = EVOLVE.format(task=parent.question, way=WAYS[drawn], words=words)
            yield Child([parent], {"prompt": text})

    return ask
