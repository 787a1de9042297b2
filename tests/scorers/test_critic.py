"""The critic: what it learns, of whom, and what its labels say of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.methods import find
from pipeline.scorers.critic import BUCKETS, curve, features, fitted

WORDS = {"right": "four and no more", "wrong": "seven or thereabouts"}


def told(prompts: int, answers: int = 2, **changed: list) -> pa.Table:
    """Answers to prompts, by turns right and wrong, which say so in their words."""
    count = prompts * answers
    kinds = ["right" if i % 2 == 0 else "wrong" for i in range(count)]
    columns = {
        "response_id": [f"r{i:04d}" for i in range(count)],
        "prompt_id": [f"p{i // answers:03d}" for i in range(count)],
        "entry": ["teacher"] * count,
        "messages": [[{"role": "user", "content": f"What is two and two, {i}?"}] for i in range(count)],
        "content": [f"{WORDS[kind]}, {i}" for i, kind in enumerate(kinds)],
        "verifier": ["text.exact"] * count,
        "reference": ["4"] * count,
        "answer": ["4" if kind == "right" else "7" for kind in kinds],
        "error": [None] * count,
    }
    return pa.table({name: pa.array(values) for name, values in (columns | changed).items()})


def scored(rows: pa.Table, seen: pa.Table | None = None, **arguments: object) -> tuple[np.ndarray, list[dict]]:
    method = find("scorer", "critic.linear")
    learn = method.factory(**method.arguments.model_validate(arguments).model_dump())
    found = learn([rows if seen is None else seen])(rows)
    return found["score"].to_numpy(zero_copy_only=False), [dict(row) for row in found["quantities"].to_pylist()]


def test_it_tells_right_answers_that_it_was_not_told_of() -> None:
    rows = told(60)
    scores, quantities = scored(rows, labelled=0.3)
    labelled = np.array([row["labelled"] == 1 for row in quantities])
    assert 0.1 < labelled.mean() < 0.5
    assert scores[~labelled][::2].min() > 0.5 > scores[~labelled][1::2].max()


def test_all_answers_to_a_prompt_are_told_or_none() -> None:
    _, quantities = scored(told(40), labelled=0.4)
    assert all(
        one["labelled"] == other["labelled"] for one, other in zip(quantities[::2], quantities[1::2], strict=True)
    )


def test_a_label_does_not_score_its_own_prompt() -> None:
    """Every prompt's answers are in words of their own, so that nothing is to be learnt from others."""
    rows = told(40, content=[f"{chr(0x4E00 + i)}" for i in range(80)], messages=[[]] * 80)
    scores, _ = scored(rows)
    assert abs(scores[::2].mean() - scores[1::2].mean()) < 0.05


def test_an_answer_without_a_reference_is_scored_and_never_told() -> None:
    rows = told(30, reference=["4"] * 40 + [None] * 20)
    scores, quantities = scored(rows)
    assert [row["labelled"] for row in quantities] == [1] * 40 + [0] * 20
    assert scores[40::2].min() > 0.5 > scores[41::2].max()


def test_parts_are_learnt_from_together() -> None:
    rows = told(30)
    method = find("scorer", "critic.linear")
    in_parts = method.factory(**method.arguments().model_dump())([rows.slice(0, 20), rows.slice(20)])
    assert in_parts(rows)["score"].to_pylist() == scored(rows)[0].tolist()


@pytest.mark.parametrize(
    "changed",
    [{"answer": ["4"] * 20}, {"answer": ["7"] * 20}, {"reference": [None] * 20}, {"prompt_id": ["p"] * 20}],
    ids=["all right", "all wrong", "no reference", "one prompt"],
)
def test_where_nothing_can_be_learnt_nothing_is_scored(changed: dict[str, list]) -> None:
    rows = told(10, **changed)
    rows = rows.set_column(rows.schema.get_field_index("reference"), "reference", rows["reference"].cast(pa.string()))
    scores, _ = scored(rows)
    assert np.isnan(scores).all()


def test_failed_requests_are_null_and_an_empty_part_is_empty() -> None:
    rows = told(20, error=["no route", *[None] * 39])
    scores, _ = scored(rows)
    assert np.isnan(scores[0]) and not np.isnan(scores[1:]).any()
    assert scored(rows.slice(0, 0), seen=rows)[0].tolist() == []
    assert scored(rows.slice(0, 0))[0].tolist() == []


def test_each_entry_has_a_critic_of_its_own() -> None:
    """What one entry says when it is right the other says when it is wrong."""
    rows = told(40, entry=["teacher"] * 40 + ["base"] * 40, answer=["4", "7"] * 20 + ["7", "4"] * 20)
    scores, _ = scored(rows)
    assert scores[:40:2].min() > 0.5 > scores[1:40:2].max()
    assert scores[40::2].max() < 0.5 < scores[41::2].min()


def test_the_curve_is_counted_among_those_that_score_as_high() -> None:
    known, right = np.array([0.9, 0.8, 0.8, 0.2]), np.array([1.0, 1.0, 0.0, 0.0])
    precision, size = curve(known, right, np.array([0.1, 0.2, 0.5, 0.8, 0.85, 0.9, 1.0]))
    assert precision.tolist() == [0.5, 0.5, 2 / 3, 2 / 3, 1, 1, 1]
    assert size.tolist() == [1, 1, 0.75, 0.75, 0.25, 0.25, 0.25]


def test_precision_and_size_are_those_of_the_labelled_answers() -> None:
    rows = told(60)
    scores, quantities = scored(rows, labelled=0.3)
    known = [(score, row["right"]) for score, row in zip(scores, quantities, strict=True) if row["labelled"]]
    for score, row in zip(scores, quantities, strict=True):
        above = [right for other, right in known if other >= min(score, max(known)[0])]
        assert row["precision"] == pytest.approx(np.mean(above)) and row["size"] == len(above) / len(known)


def test_weights_are_the_least_of_the_penalised_loss() -> None:
    """The gradient is zero there, and a constant alone has the share of right ones."""
    rows, right = told(20), np.tile([1.0, 0.0], 20)
    made = features(rows, 3)
    weights = fitted(made, right, 0.5)
    slope = made.T @ (1 / (1 + np.exp(-(made @ weights))) - right) + 0.5 * weights * (np.arange(BUCKETS + 1) < BUCKETS)
    assert abs(slope).max() < 1e-4
    alone = made.copy()
    alone.data[alone.indices < BUCKETS] = 0
    share = np.r_[right[:30], np.ones(10)]
    assert 1 / (1 + np.exp(-fitted(alone, share, 0.5)[-1])) == pytest.approx(share.mean(), abs=1e-4)


def test_features_are_runs_of_bytes_with_length_1_and_a_constant() -> None:
    rows = told(2)
    made = features(rows, 4)
    assert made.shape == (4, BUCKETS + 1)
    np.testing.assert_allclose(made.multiply(made).sum(1), 2)
    same = told(2, content=["ab"] * 4, messages=[[{"role": "user", "content": "ab"}]] * 4)
    (first, *_) = features(same, 2)
    # a, b and ab of the prompt, the same of the answer, which are others, and the constant.
    assert first.nnz == 7
