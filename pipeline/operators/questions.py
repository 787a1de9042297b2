"""Operators that ask a model about answers; the stage `judge` makes scores of what it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Annotated

from pydantic import Field, PositiveInt

from pipeline.kinds.operator import Child, Operator, Parent, operator
from pipeline.tables import ids

Criteria = Annotated[tuple[str, ...], Field(min_length=1)]
QUALITY = ("whether it is right", "whether it does all that is asked, and nothing else")

POINTS = """Judge an answer to a question.

<question>
{question}
</question>

<answer>
{answer}
</answer>

Look at this:
{criteria}

Give it points from 1, the worst, to {scale}, the best. Say in a few words why, and end with a line that has #### and \
behind it the points, as one number and nothing else."""
PAIRS = """Compare two answers to a question.

<question>
{question}
</question>

<answer A>
{one}
</answer A>

<answer B>
{other}
</answer B>

Look at this:
{criteria}

Which comes first, and which is longer, counts for nothing. Say in a few words why, and end with one line: "The better \
answer is: A", "The better answer is: B", or, where neither is better, "The better answer is: C"."""
EQUIVALENT = """Compare two answers to a question.

<question>
{question}
</question>

<first answer>
{one}
</first answer>

<second answer>
{other}
</second answer>

Does the first mean the same as the second, whatever the words? If it does, end with the line "The answer is: A", and \
if not, with "The answer is: B"."""


@operator(reads="answers", elicitation="feedback", verdict="points", verifiers=("text.marked",))
def points(*, criteria: Criteria = QUALITY, scale: Annotated[int, Field(ge=2, le=100)] = 5) -> Operator:
    """A question for each answer: how many points from 1 to `scale` it deserves by the `criteria`.

    Answers to one prompt with one content are asked about once.

    Paper: Zheng et al. 2023 (MT-Bench, arXiv 2306.05685), section 3.1, grading of one answer.
    Differs: the criteria are parameters; points are read behind `####` alone, since `4 out of 5` ends with a 5.
    """
    listed = _listed(criteria)

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for parent in distinct(parents):
            text = POINTS.format(question=_question(parent), answer=parent.content, criteria=listed, scale=scale)
            yield Child([parent], {"prompt": text, "verifier": "text.marked"})

    return ask


@operator(reads="answers", elicitation="feedback", verdict="better", verifiers=("text.choice",))
def pairs(*, criteria: Criteria = QUALITY, most: PositiveInt = 3) -> Operator:
    """Two questions for each of up to `most` pairs of answers to one prompt: which of both is better by the `criteria`,
    once in either order.

    Pairs are drawn; contents that are the same are one answer.

    Paper: Zheng et al. 2023 (MT-Bench, arXiv 2306.05685), section 3.1, comparison of two, and 3.4, positions swapped.
    Differs: the criteria are parameters.
    """
    listed = _listed(criteria)

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for one, other in ordered(parents, most, seed):
            text = PAIRS.format(question=_question(one), one=one.content, other=other.content, criteria=listed)
            yield Child([one, other], {"prompt": text, "verifier": "text.choice {choices: 3}"})

    return ask


@operator(reads="answers", elicitation="feedback", verdict="same", verifiers=("text.choice",))
def equivalent(*, most: PositiveInt = 3) -> Operator:
    """Two questions for each of up to `most` pairs of answers to one prompt: whether one means the same as the other,
    and the other as the one.

    Pairs are drawn; contents that are the same are one answer.

    Paper: Jung et al. 2024 (Impossible Distillation, arXiv 2305.16635): a pair is kept if each entails the other.
    Differs: a model is asked in words, where the paper takes a classifier of entailment; all pairs may be too many.
    """

    def ask(parents: Sequence[Parent], seed: int) -> Iterator[Child]:
        for one, other in ordered(parents, most, seed):
            text = EQUIVALENT.format(question=_question(one), one=one.content, other=other.content)
            yield Child([one, other], {"prompt": text, "verifier": "text.choice {choices: 2}"})

    return ask


def distinct(parents: Sequence[Parent]) -> list[Parent]:
    """The first of all answers to a prompt that have one content."""
    first: dict[tuple[str, str | None], Parent] = {}
    for parent in parents:
        first.setdefault((parent.prompt_id, parent.content), parent)
    return list(first.values())


def ordered(parents: Sequence[Parent], most: int, seed: int) -> Iterator[tuple[Parent, Parent]]:
    """Up to `most` pairs of distinct answers to every prompt, each in both orders."""
    prompts: dict[str, list[Parent]] = {}
    for parent in distinct(parents):
        prompts.setdefault(parent.prompt_id, []).append(parent)
    for answers in prompts.values():
        drawn = sorted(combinations(answers, 2), key=lambda pair: ids.draw(seed, "pair", pair[0].id, pair[1].id))
        for one, other in drawn[:most]:
            yield one, other
            yield other, one


def _question(parent: Parent) -> str:
    """What was asked; of a conversation all turns, each with its role."""
    if len(parent.messages) == 1:
        return parent.question
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in parent.messages)


def _listed(criteria: Sequence[str]) -> str:
    return "\n".join(f"- {one}" for one in criteria)
