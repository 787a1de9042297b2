"""Feeds of the student's own answers that ask for more than `rollout.on_policy` does: a teacher that takes part,
answers of before, several answers to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.errors import Refused
from pipeline.feeds.rollout import Keeping
from pipeline.kinds.backend import Sampling
from pipeline.kinds.feed import Draw, Feed, feed
from pipeline.tables import ids

Share = Annotated[float, Field(ge=0, le=1)]
READS = ("example_id", "prompt_id", "token_ids", "spans", "verifier", "reference")


@feed(reads=READS, keeps_signals=False, asks_teacher=True)
def with_teacher(*, mixed: Annotated[float, Field(ge=0, lt=1)] = 0.2, max_tokens: PositiveInt = 64) -> Feed:
    """Answers whose tokens are drawn from a mixture of the student and, by the share `mixed`, the teacher.

    Paper: Gu et al. 2024, MiniLLM (arXiv 2306.08543), teacher-mixed sampling, eq. 6; `mixed` is its alpha.
    Differs: nothing. `policy.minillm` with the same `mixed` corrects for it.
    """
    return WithTeacher(mixed, Sampling(1.0, 1.0, max_tokens))


@feed(reads=READS, keeps_signals=False)
def replayed(
    *,
    capacity: PositiveInt = 1000,
    every: PositiveInt = 100,
    tolerance: NonNegativeFloat = 0.1,
    add: Annotated[float, Field(gt=0, le=1)] = 0.1,
    begin: Share = 0.0,
    temperature: NonNegativeFloat = 1.0,
    max_tokens: PositiveInt = 64,
) -> Feed:
    """In a share of the steps, answers of the student's, mostly of earlier ones; the share grows where learning stops.

    The share begins at `begin` and grows by `add` whenever, over `every` steps, the mean loss of the table's own rows
    is not below what it was before plus `tolerance`. Of those steps the share 1 - t draws new answers, t the part of
    the training that is done, and every one does until there are `capacity`; rows are then taken from the last
    `capacity` answers.
    Paper: Ko et al. 2024, DistiLLM (arXiv 2402.03898), section 3.2: adaptive off-policy use of own answers.
    Differs: the loss is that of the rows trained on, where the paper looks at held-out ones.
    """
    return Replayed(capacity, every, tolerance, add, begin, Sampling(temperature, 1.0, max_tokens))


@feed(reads=READS, keeps_signals=False)
def groups(
    *,
    answers: Annotated[int, Field(ge=2)] = 8,
    drop_alike: bool = True,
    temperature: PositiveFloat = 1.0,
    max_tokens: PositiveInt = 64,
) -> Feed:
    """Several answers of the student's to each prompt of the step, each with what its verifier says as the reward.

    Prompts whose answers are all rewarded alike say nothing and are dropped; a step has one of them if it has no other.
    All are kept, so `rollouts` beside the model tells how many there were.
    Paper: Shao et al. 2024, GRPO (arXiv 2402.03300), its groups; dropping: DAPO (Yu et al. 2025, arXiv 2503.14476).
    Differs: no more prompts are drawn in the place of those that are dropped.
    """
    return Groups(answers, drop_alike, Sampling(temperature, 1.0, max_tokens))


def named(draw: Draw, numbers: Sequence[int]) -> list[tuple[Any, ...]]:
    """What the answers to these rows are called; a row may come several times."""
    examples, step = draw.rows["example_id"].to_pylist(), draw.step.number
    return [("sampled", step, examples[number], numbers[:i].count(number)) for i, number in enumerate(numbers)]


class WithTeacher(Keeping):
    """See `with_teacher`."""

    def __init__(self, mixed: float, sampling: Sampling) -> None:
        super().__init__()
        self.mixed, self.sampling = mixed, sampling

    def __call__(self, draw: Draw) -> pa.Table:
        every = range(len(draw.rows))
        return self.draw(draw, every, named(draw, every), self.sampling, self.mixed)


class Replayed(Keeping):
    """See `replayed`. Its share follows from the curve alone, so it is found again after a stop."""

    def __init__(
        self, capacity: int, every: int, tolerance: float, add: float, begin: float, sampling: Sampling
    ) -> None:
        super().__init__()
        self.capacity, self.every, self.tolerance, self.add = capacity, every, tolerance, add
        self.share, self.sampling = begin, sampling
        # Steps that were looked at; the losses of the table's rows since the last look, and their mean at that one.
        self.seen, self.losses, self.before = 0, list[float](), float("inf")

    def __call__(self, draw: Draw) -> pa.Table:
        self._follow(draw)
        chance = self._chance(draw, draw.step.number)
        if chance >= self.share:
            return draw.rows
        held = sum(map(len, self.drawn))
        if held < self.capacity or chance < self.share * (1 - draw.step.number / draw.step.of):
            every = range(len(draw.rows))
            held += len(self.draw(draw, every, named(draw, every), self.sampling))
        last = min(held, self.capacity)
        rows = ids.generator(draw.seed, "replayed", draw.step.number).choice(last, min(last, len(draw.rows)), False)
        return self.kept().take(pa.array(held - last + rows))

    def _follow(self, draw: Draw) -> None:
        """Take in the losses of the steps since the last call, and let the share grow."""
        for number in range(self.seen, draw.step.number):
            if self._chance(draw, number) >= self.share:
                self.losses.append(draw.curve[number]["loss"])
            if (number + 1) % self.every == 0 and self.losses:
                mean = sum(self.losses) / len(self.losses)
                if mean >= self.before + self.tolerance:
                    self.share = min(1.0, self.share + self.add)
                self.before, self.losses = mean, []
        self.seen = draw.step.number

    @staticmethod
    def _chance(draw: Draw, step: int) -> float:
        return ids.draw(draw.seed, "replayed", step)


class Groups(Keeping):
    """See `groups`."""

    def __init__(self, answers: int, drop_alike: bool, sampling: Sampling) -> None:
        super().__init__()
        self.answers, self.drop_alike, self.sampling = answers, drop_alike, sampling

    def __call__(self, draw: Draw) -> pa.Table:
        prompts = draw.rows["prompt_id"].to_pylist()
        first = {prompt: number for number, prompt in reversed(list(enumerate(prompts)))}
        numbers = [number for number in sorted(first.values()) for _ in range(self.answers)]
        made = self.draw(draw, numbers, named(draw, numbers), self.sampling)
        if made["reward"].null_count:
            prompt = made["prompt_id"][pc.index(pc.is_null(made["reward"]), True).as_py()]
            raise Refused(
                f"the answers to prompt {prompt} have no reward: its row names no verifier, or has no reference. Let "
                f"the selection leave such prompts out"
            )
        if not self.drop_alike:
            return made
        groups = [made.slice(start, self.answers) for start in range(0, len(made), self.answers)]
        varied = [group for group in groups if len(group["reward"].unique()) > 1]
        return pa.concat_tables(varied or groups[:1])
