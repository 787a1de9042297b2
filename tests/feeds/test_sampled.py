"""Feeds of the student's own answers: groups, replay, and what they refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.kinds.backend import Sampling
from pipeline.kinds.feed import Draw, Feed
from pipeline.kinds.objective import Step
from tests.laws.test_feeds import rows

OF = 40


def built(name: str, **arguments: Any) -> Feed:
    method = find("feed", f"sampled.{name}")
    return method.factory(**method.arguments.model_validate(arguments).model_dump())


def draw(step: int, curve: Sequence[float] = (), by: Any = None) -> Draw:
    """A step of a student that answers `[seed % 7, 1]`; `by` gives an answer's reward by its row."""

    def sample(prompts: Any, seeds: Sequence[int], sampling: Sampling, mixed: float = 0.0) -> list[list[int]]:
        asked.append((len(prompts), mixed))
        return [[seed % 7, 1] for seed in seeds]

    reward = by or (lambda row, tokens: float(tokens[0] % 2))
    return Draw(Step(step, OF, 0, 1), 17, rows(step), sample, reward, [{"loss": loss} for loss in curve])


asked: list[tuple[int, float]] = []


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    asked.clear()


def test_every_prompt_is_answered_several_times_with_a_draw_of_its_own_each() -> None:
    made = built("groups", answers=6, drop_alike=False)(draw(0))
    assert Counter(made["prompt_id"].to_pylist()) == {"p0": 6, "p1": 6}
    assert len(made["example_id"].unique()) == 12 and set(made["reward"].to_pylist()) == {0.0, 1.0}
    # The rows are those of the first example of each prompt, with another answer.
    assert {row["token_ids"][0] for row in made.to_pylist()} == {0, 2}


def test_prompts_whose_answers_are_rewarded_alike_are_dropped_and_kept_in_the_table() -> None:
    feed: Any = built("groups", answers=4)
    made = feed(draw(0, by=lambda row, tokens: float(row == 0 and tokens[0] % 2)))
    assert set(made["prompt_id"].to_pylist()) == {"p0"} and len(feed.kept()) == 8
    alike = built("groups", answers=4)(draw(0, by=lambda row, tokens: 1.0))
    assert alike["prompt_id"].to_pylist() == ["p0"] * 4


def test_a_group_of_one_answer_and_a_prompt_without_a_reward_are_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        built("groups", answers=1)
    with pytest.raises(Refused, match="the answers to prompt p1 have no reward"):
        built("groups")(draw(0, by=lambda row, tokens: 1.0 if row < 2 else None))


def test_the_teacher_takes_its_share_in_the_sampling() -> None:
    made = built("with_teacher", mixed=0.3)(draw(3))
    assert asked == [(4, 0.3)] and set(made["step"].to_pylist()) == {4}


def run(losses: Sequence[float], **arguments: Any) -> tuple[Any, list[pa.Table]]:
    feed: Any = built("replayed", **arguments)
    return feed, [feed(draw(step, losses[:step])) for step in range(OF)]


def test_the_share_of_own_answers_grows_where_the_loss_stops_falling() -> None:
    falling = [2.0 - 0.04 * step for step in range(OF)]
    feed, _ = run(falling, every=5)
    assert feed.share == 0 and not asked
    # The loss of the table's rows rises by 0.5 at every look.
    feed, _ = run([step // 5 * 0.5 for step in range(OF)], every=5, add=0.1)
    assert feed.share == pytest.approx(0.6) and asked


def test_rows_come_from_the_last_answers_and_new_ones_get_rare() -> None:
    feed, steps = run([1.0] * OF, begin=1.0, capacity=8)
    newest = {row["example_id"]: number for number, row in enumerate(feed.kept().to_pylist())}
    for table in steps:
        assert len(table) == 4 and set(table["example_id"].to_pylist()) <= set(newest)
    assert len(set(steps[-1]["example_id"].to_pylist())) == 4
    assert min(newest[name] for name in steps[-1]["example_id"].to_pylist()) >= len(newest) - 8
    drawn = [row["step"] for row in feed.kept().to_pylist()]
    assert len(set(drawn)) < OF and sum(s <= OF // 2 for s in set(drawn)) > sum(s > OF // 2 for s in set(drawn))


def test_a_share_that_grew_is_found_again_after_a_stop() -> None:
    losses = [step // 5 * 0.5 for step in range(OF)]
    whole, steps = run(losses, every=5, add=0.2)
    again: Any = built("replayed", every=5, add=0.2)
    first = whole.kept().filter(pc.less_equal(whole.kept()["step"], 30))
    again.restore(first)
    for step in range(30, OF):
        assert again(draw(step, losses[:step])).equals(steps[step])
    assert again.share == whole.share and again.kept().equals(whole.kept())


def test_names_of_draws_do_not_hang_on_the_other_rows() -> None:
    one = draw(0)
    some = replace(one, rows=one.rows.slice(0, 2))
    both, first = (built("groups", answers=3, drop_alike=False)(d) for d in (one, some))
    assert both.slice(0, 3).equals(first)
