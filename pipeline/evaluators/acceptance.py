"""Evaluators of a draft: how many of its tokens the model `against`, for which it drafts, takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.evaluators.answers import JUDGED, marked
from pipeline.kinds.backend import Answer, Reading, Sampling, Want
from pipeline.kinds.evaluator import Evaluator, Exam, Mark, evaluator
from pipeline.model.chat import Chat
from pipeline.model.folder import hashes
from pipeline.model.load import load
from pipeline.model.speculative import decode
from pipeline.tables import ids

# As many as any vocabulary has: the whole distribution.
ALL = Want(top_k=1 << 30)
NEEDS = ("generate", "read", "full_logits")
# Texts whose distributions are in memory at once.
AT_ONCE = 8


@evaluator(measure="acceptance", better="higher", beside=True, needs=NEEDS, finds=("network",))
def expected(*, ahead: PositiveInt = 4, seed: int = 0) -> Evaluator:
    """The share of a draft's tokens that the target takes: the mean over an answer's tokens of the sum over the
    vocabulary of the smaller of both probabilities, at temperature 1, on an answer that the target draws.

    Quantities: tokens; accepted, the sum; block, the tokens that one call of the target yields with `ahead` proposals,
    if every token were taken with this chance.

    Paper: Leviathan et al. 2023 (arXiv 2211.17192), theorem 3.5 and equation 1; the measure of AdaSPEC (arXiv
    2510.19779) and of TVD++ (Goel et al. 2024, arXiv 2403.00858).
    Differs: nothing.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        drawn = exam.other.answers(Sampling(1.0, 1.0, exam.max_tokens), 1, seed)
        asked, others = (m.tokens([answer.content for [answer] in drawn]) for m in (exam.model, exam.other))
        _same_tokens(exam, [t and t.asked() for t in asked], [t and t.asked() for t in others])
        there = [(item, tokens) for item, tokens in zip(exam.items, asked, strict=True) if tokens is not None]
        with exam.model.open() as model, exam.other.open() as other:
            for start in range(0, len(there), AT_ONCE):
                some = there[start : start + AT_ONCE]
                own, theirs = (
                    {reading.id: _whole(reading) for reading in backend.read([tokens for _, tokens in some], ALL)}
                    for backend in (model, other)
                )
                for item, tokens in some:
                    taken_N = np.minimum(own[tokens.id], theirs[tokens.id]).sum(1)
                    share = float(taken_N.mean())
                    block = sum(share**i for i in range(ahead + 1))
                    numbers = {"tokens": float(len(taken_N)), "accepted": float(taken_N.sum()), "block": block}
                    yield Mark(item, share, numbers)

    return judge


def _whole(reading: Reading) -> np.ndarray:
    """All probabilities [N, V], by token."""
    assert reading.topk_ids is not None and reading.topk_logprobs is not None
    found = np.empty(reading.topk_logprobs.shape)
    np.put_along_axis(found, reading.topk_ids.astype(np.int64), np.exp(reading.topk_logprobs.astype(np.float64)), 1)
    return found


@evaluator(
    measure="accepted", better="higher", beside=True, needs=("generate", "full_logits"), loads=True, finds=JUDGED
)
def decoded(*, ahead: PositiveInt = 4, temperature: NonNegativeFloat = 0.0, seed: int = 0) -> Evaluator:
    """The share of a draft's proposals that the target takes in a real speculative decode, whose answer is the target's
    own: at temperature 0 its greedy answer, else a draw of it.

    Quantities: proposed, those that were judged; accepted; calls, of the target; tokens, of the answer; right, where
    that is known. So tokens / calls is the block efficiency.

    Paper: Leviathan et al. 2023 (arXiv 2211.17192), algorithm 1.
    Differs: one text at a time.
    """

    def judge(exam: Exam) -> Iterator[Mark]:
        _same_tokens(exam, *(hashes(model.folder / "tokenizer") for model in (exam.model, exam.other)))
        draft, target = (load(model.folder, model.dtype) for model in (exam.model, exam.other))
        chat = Chat(exam.other.folder / "tokenizer")
        for item in exam.items:
            found = decode(
                draft, target, chat.prompt(item.messages), chat.end_ids, max_tokens=exam.max_tokens, ahead=ahead,
                temperature=temperature, seed=ids.seed_of(seed, "speculative", item.prompt_id),
            )  # fmt: skip
            stopped = not {*chat.end_ids}.isdisjoint(found.token_ids[-1:])
            answer = Answer(
                item.prompt_id, chat.decode(found.token_ids), "stop" if stopped else "length",
                completion_tokens=len(found.token_ids),
            )  # fmt: skip
            proposed, accepted, right = len(found.judged), sum(found.judged.values()), item.right(answer)
            numbers = {"proposed": float(proposed), "accepted": float(accepted), "calls": float(found.calls)}
            numbers |= {} if right is None else {"right": right}
            yield marked(item, answer, accepted / proposed if proposed else None, numbers)

    return judge


def _same_tokens(exam: Exam, one: object, other: object) -> None:
    if one != other:
        raise Refused(
            f"{exam.model.name} and {exam.other.name} cut or render a conversation differently, and a draft proposes "
            f"tokens of the target: compare models of one tokenizer and chat template"
        )
