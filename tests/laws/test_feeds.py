"""Laws of feeds: rows of examples, the same for the same step, and a reward only where `reads` names the verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest

from pipeline.contracts import EXAMPLES
from pipeline.core.methods import Method
from pipeline.kinds.backend import Sampling
from pipeline.kinds.feed import Draw, Feed
from pipeline.kinds.objective import Step
from pipeline.laws.law import Broken, arguments, build, must
from tests.laws.ours import named, ours

STEPS = 12
NEEDED = {"example_id", "token_ids", "spans", "weight"}


@dataclass(frozen=True)
class Case:
    """A feed with arguments; `make` gives it anew, for it may keep what it drew."""

    method: Method
    arguments: dict[str, Any]
    make: Callable[[], Feed]

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items())])

    def drawn(self, *, rewards: bool = True) -> list[pa.Table]:
        """What it gives in every step of a training."""
        feed = self.make()
        return [feed(draw(step, rewards)) for step in range(STEPS)]


def rows(step: int) -> pa.Table:
    """The rows of a step: four examples of eight tokens, of which five are learnt."""
    made = [
        {
            "example_id": f"{step}-{i}", "prompt_id": f"p{i // 2}", "domain": "d", "token_ids": [i, *range(7)],
            "spans": [{"start": 3, "end": 8}], "weight": 1.0, "template_hash": "t", "tokenizer_hash": "t",
            "response_ids": [], "verifier": "text.exact", "reference": "1",
        }
        for i in range(4)
    ]  # fmt: skip
    return pa.Table.from_batches([EXAMPLES.rows(made)])


def draw(step: int, rewards: bool) -> Draw:
    """A step in which the student answers by a rule, with rewards or without."""

    def sample(
        prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling, mixed: float = 0.0
    ) -> list[list[int]]:
        return [[seed % 7, len(prompt), 1] for prompt, seed in zip(prompts, seeds, strict=True)]

    def reward(row: int, tokens: Sequence[int]) -> float | None:
        must(rewards, "it asks for a reward")
        return float(tokens[0] % 2)

    return Draw(Step(step, STEPS, 0, 1), 17, rows(step), sample, reward, [{"loss": 1.0 + n // 3} for n in range(step)])


def a_step_is_rows_of_examples(case: Case) -> None:
    for table in case.drawn():
        must(set(table.column_names) >= NEEDED and len(table) > 0, f"{len(table)} rows of {table.column_names}")
        for row in table.select(["token_ids", "spans"]).to_pylist():
            ends = [place for span in row["spans"] for place in (span["start"], span["end"])]
            must(ends == sorted(ends) and ends[0] > 0 and ends[-1] <= len(row["token_ids"]), f"spans {row['spans']}")


def the_same_step_is_the_same_rows(case: Case) -> None:
    must(case.drawn() == case.drawn(), "a second training draws other rows")


def it_goes_on_after_a_checkpoint(case: Case) -> None:
    first, second = case.make(), case.make()
    if not hasattr(first, "kept"):
        return
    for step in range(STEPS):
        first(draw(step, True))
        if step == STEPS // 2:
            second.restore(first.kept())  # type: ignore[attr-defined]
        elif step > STEPS // 2:
            second(draw(step, True))
    must(first.kept() == second.kept(), "what it kept differs")  # type: ignore[attr-defined]


def a_reward_needs_the_verifier(case: Case) -> None:
    if "verifier" not in case.method.traits["reads"]:
        case.drawn(rewards=False)


LAWS = (
    a_step_is_rows_of_examples,
    the_same_step_is_the_same_rows,
    it_goes_on_after_a_checkpoint,
    a_reward_needs_the_verifier,
)
CASES = [Case(m, given, lambda m=m, given=given: build(m, given)) for m in ours("feed") for given in arguments(m, {})]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("law", LAWS, ids=named)
def test_law(law: Callable[[Case], None], case: Case) -> None:
    law(case)


def counting() -> Callable[[], Feed]:
    calls: list[int] = []

    def feed(draw: Draw) -> pa.Table:
        calls.append(1)
        return draw.rows.slice(0, 1 + len(calls) // STEPS)

    return lambda: feed


class Forgetful:
    """A feed that keeps only what it drew since it was restored."""

    def __init__(self) -> None:
        self.drawn: list[pa.Table] = []

    def __call__(self, draw: Draw) -> pa.Table:
        self.drawn.append(draw.rows)
        return draw.rows

    def kept(self) -> pa.Table:
        return pa.concat_tables(self.drawn)

    def restore(self, table: pa.Table) -> None:
        self.drawn = []


BROKEN: dict[str, tuple[Callable[[Case], None], Callable[[], Feed]]] = {
    "nothing": (a_step_is_rows_of_examples, lambda: lambda draw: draw.rows.slice(0, 0)),
    "no tokens": (a_step_is_rows_of_examples, lambda: lambda draw: draw.rows.drop(["token_ids"])),
    "counts calls": (the_same_step_is_the_same_rows, counting()),
    "forgets": (it_goes_on_after_a_checkpoint, Forgetful),
    "rewards": (a_reward_needs_the_verifier, lambda: lambda draw: draw.reward(0, [1]) and draw.rows),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_feed_breaks_a_law(fault: str) -> None:
    law, make = BROKEN[fault]
    sound = CASES[0]
    method = replace(sound.method, traits={**sound.method.traits, "reads": ("token_ids",)})
    with pytest.raises(Broken):
        law(replace(sound, method=method, make=make))
