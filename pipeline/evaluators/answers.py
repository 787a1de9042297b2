"""Evaluators that ask a model the items and judge its answers with their verifiers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, Sampling
from pipeline.kinds.evaluator import Evaluator, Exam, Item, Mark, evaluator
from pipeline.kinds.verifier import by_place, measure_of, metric_of, same, verifier_named
from pipeline.tables.graphs import UNKNOWN
from pipeline.tables.tensors import arrays

# Who asks an item whether an answer is right finds its verifier by name.
JUDGED = ("verifier",)
Share = Annotated[float, Field(gt=0, le=1)]


@evaluator(measure="accuracy", better="higher", needs=("generate",), finds=JUDGED)
def greedy() -> Evaluator:
    """Whether the greedy answer is right, and the probability that the model gave to it: a model as it would be used.

    An item whose verifier judges places, such as the nodes of a graph, has a mark for each that has a reference.
    Where the verifier is one of arrays, the metric is what it measures, with its quantities.
    Quantities: tokens, those of the answer, where they are known.

    Paper: none.
    Differs: nothing.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        for item, [answer] in zip(exam.items, exam.model.answers(exam.greedy), strict=True):
            if item.verifier is not None and item.reference is not None and by_place(item.verifier):
                yield from _at_places(item, answer)
            elif item.verifier is not None and (measure := measure_of(item.verifier)):
                yield _of_arrays(item, answer, measure)
            else:
                yield marked(item, answer, item.right(answer), {})

    return judge


def _of_arrays(item: Item, answer: Answer, measure: str) -> Mark:
    """What a verifier of arrays says; nothing where there is no truth or no array."""
    if not item.truth or not answer.outputs:
        return replace(marked(item, answer, None, {}), measure=measure)
    judge: Any = verifier_named(item.verifier or "")
    try:
        said = judge.judge(arrays(answer.outputs), arrays(item.truth))
    except Refused as error:
        raise Refused(f"prompt {item.prompt_id}: {error}") from error
    return replace(marked(item, answer, said.metric, said.quantities), measure=measure, outputs=answer.outputs)


def _at_places(item: Item, answer: Answer) -> Iterator[Mark]:
    """A mark for each place with a reference; an answer of another length says nothing of any."""
    targets, said = (item.reference or "").split("\n"), (item.short(answer) or "").split("\n")
    sure = answer.logprobs or [None] * len(targets)
    for place, target in enumerate(targets):
        if target == UNKNOWN:
            continue
        one = said[place] if len(said) == len(targets) else None
        yield Mark(
            item,
            metric_of(item.verifier, one, target),
            content=one,
            prediction=one,
            confidence=confidence(sure[place : place + 1]),
            finish_reason=answer.finish_reason,
            place=place,
        )


def marked(item: Item, answer: Answer, metric: float | None, quantities: Mapping[str, float]) -> Mark:
    """A mark that shows the answer that it is about, and how many tokens that has."""
    tokens = {} if answer.completion_tokens is None else {"tokens": float(answer.completion_tokens)}
    return Mark(
        item,
        metric,
        {**quantities, **tokens},
        content=answer.content,
        prediction=item.short(answer),
        confidence=confidence(answer.logprobs),
        finish_reason=answer.finish_reason,
    )


def confidence(logprobs: Sequence[float | None] | None) -> float | None:
    """The probability of an answer; null if one of its tokens has none."""
    known = [value for value in logprobs or () if value is not None]
    return None if logprobs is None or len(known) < len(logprobs) else math.exp(sum(known))


def _drawn(exam: Exam, n: int, temperature: float, top_p: float, seed: int) -> Iterator[tuple[Item, list[Answer]]]:
    sampling = Sampling(temperature, top_p, exam.max_tokens)
    return zip(exam.items, exam.model.answers(sampling, n, seed), strict=True)


@evaluator(measure=lambda arguments: f"pass@{arguments['k']}", better="higher", needs=("generate",), finds=JUDGED)
def sampled(
    *,
    k: PositiveInt = 1,
    n: PositiveInt = 8,
    temperature: PositiveFloat = 1.0,
    top_p: Share = 1.0,
    seed: int = 0,
) -> Evaluator:
    """The chance that one of k answers is right, from n that were drawn, without bias; null where n < k.

    Quantities: n, answers that can be judged; c, those that are right; tokens, the mean of all n.

    Paper: Chen et al. 2021 (Codex, arXiv 2107.03374), equation 1.
    Differs: nothing.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        for item, answers in _drawn(exam, n, temperature, top_p, seed):
            known = [right for right in map(item.right, answers) if right is not None]
            c = int(sum(known))
            chance = 1 - math.comb(len(known) - c, k) / math.comb(len(known), k) if len(known) >= k else None
            yield Mark(item, chance, {"n": float(len(known)), "c": float(c), **_mean_tokens(answers)})

    return judge


@evaluator(measure=lambda arguments: f"maj@{arguments['n']}", better="higher", needs=("generate",), finds=JUDGED)
def majority(
    *,
    n: PositiveInt = 8,
    temperature: PositiveFloat = 1.0,
    top_p: Share = 1.0,
    seed: int = 0,
) -> Evaluator:
    """Whether what most of n drawn answers say is right; of several that lead, the share that is.

    Answers are one vote where their verifier calls them equal; what cannot be read is no vote. The draws are those of
    `answers.sampled` with the same arguments, and are asked for once. Quantities: n, votes, for the leader, tokens.

    Paper: Wang et al. 2023 (Self-consistency, arXiv 2203.11171).
    Differs: ties are shared out in place of drawn.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        for item, answers in _drawn(exam, n, temperature, top_p, seed):
            votes: Counter[str] = Counter()
            for text in filter(None, map(item.short, answers)):
                votes[next((v for v in votes if v == text or _same(item, text, v)), text)] += 1
            most = max(votes.values(), default=0)
            leaders = [text for text, count in votes.items() if count == most]
            said: list[str | None] = [*leaders] or [None]
            right = [metric_of(item.verifier, text, item.reference) for text in said]
            metric = None if None in right else sum(filter(None, right)) / len(right)
            quantities = {"n": float(len(answers)), "votes": float(most), **_mean_tokens(answers)}
            yield Mark(item, metric, quantities, prediction=leaders[0] if len(leaders) == 1 else None)

    return judge


def _same(item: Item, one: str, other: str) -> bool:
    return item.verifier is not None and same(item.verifier, one, other)


def _mean_tokens(answers: Sequence[Answer]) -> dict[str, float]:
    known: list[Any] = [answer.completion_tokens for answer in answers]
    return {} if None in known else {"tokens": sum(known) / len(known)}
