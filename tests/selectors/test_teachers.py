"""Teachers: their answers weigh by how alike their tasks are to ours, as told or as measured."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget, Candidates
from pipeline.selectors import teachers
from tests.selectors.given import rows

MANY = Budget(one_per_prompt=False)


def test_teachers_weigh_by_similarity_and_a_prompt_weighs_one() -> None:
    similarity = np.array([0.9, 0.45, -0.1, np.nan, 0.3, 0.3, -0.5])
    given = rows(7, prompts=np.array([*"ppppqqr"], object), s=similarity)
    decision = teachers.distill_weighted(similarity="s", power=2.0)(given, Budget(one_per_prompt=False), 0)
    np.testing.assert_allclose(decision.weight, [0.8, 0.2, 0, 0, 0.5, 0.5, 0])
    assert decision.reason.tolist() == ["similar", "similar", "unlike", "no_value", "similar", "similar", "unlike"]
    nearest = teachers.distill_weighted(similarity="s")(given, Budget(), 0)
    assert nearest.weight.tolist() == [1, 0, 0, 0, 1, 0, 0]


def answers(spread: dict[str, float], **more: np.ndarray) -> Candidates:
    """40 answers of four labels, by one of two teachers each; a teacher's features stand around its labels' corners."""
    rng = np.random.default_rng(0)
    label = np.arange(40) % 4
    features = {name: np.eye(4, 8)[label] + rng.normal(0, wide, (40, 8)) for name, wide in spread.items()}
    entry = np.array([*spread], object)[np.arange(40) // 4 % 2]
    prompts = np.array([f"p{i % 4}{i // 8}" for i in range(40)], object)
    own = {"domain": np.array([*"abcd"], object)[label], "entry": entry, "true": np.ones(40)}
    return rows(40, prompts=prompts, **{**own, **features, **more})


@pytest.mark.parametrize("measure", ["parc", "h_score", "knn"])
def test_the_teacher_whose_features_tell_the_labels_apart_counts_more(measure: teachers.Measure) -> None:
    given = answers({"near": 0.2, "far": 2.0})
    choose = teachers.task_similarity(vectors={"near": "near", "far": "far"}, measure=measure, power=2.0)
    decision = choose(given, MANY, 0)
    near = given["entry"] == "near"
    assert decision.weight[near].min() > 0.7 > 0.3 > decision.weight[~near].max()
    np.testing.assert_allclose(np.bincount(np.unique(given.prompts, return_inverse=True)[1], decision.weight), 1)


def test_leep_reads_distributions() -> None:
    label = np.arange(40) % 4
    near, far = 0.9 * np.eye(4)[label] + 0.025, np.full((40, 4), 0.25)
    choose = teachers.task_similarity(vectors={"near": "p", "far": "q"}, measure="leep", power=1.0)
    given = answers({"near": 1.0, "far": 1.0}, p=near, q=far)
    decision = choose(given, MANY, 0)
    told = {"near": np.exp(teachers.leep(near, label)), "far": 0.25}
    expected = [told[str(one)] / sum(told.values()) for one in given["entry"]]
    np.testing.assert_allclose(decision.weight, expected)
    with pytest.raises(Refused, match="leep needs distributions"):
        teachers.task_similarity(vectors={"near": "near"}, measure="leep")(given, MANY, 0)


def test_only_labelled_answers_are_looked_at_and_a_teacher_without_features_is_none() -> None:
    """Where the others are noise, and one has no features at all, nothing changes."""
    labelled = (np.arange(40) < 24).astype(float)
    given = answers({"near": 0.2, "far": 2.0}, known=labelled)
    noisy = {name: np.where(labelled[:, None] > 0, given[name], 1e6) for name in ("near", "far")}
    noisy["near"][30] = np.nan
    choose = teachers.task_similarity(vectors={"near": "near"}, labelled="known")
    one, other = choose(given, MANY, 0), choose(answers({"near": 0.2, "far": 2.0}, known=labelled, **noisy), MANY, 0)
    np.testing.assert_array_equal(one.weight, other.weight)
    assert set(one.reason[given["entry"] == "far"]) == {"no_value"}
    few = teachers.task_similarity(vectors={"near": "near"}, items=24)(given, MANY, 0)
    np.testing.assert_array_equal(few.weight, one.weight)


@pytest.mark.parametrize("label", ["one", "none"])
def test_one_label_tells_nothing(label: str) -> None:
    words = np.full(40, "a" if label == "one" else None, object)
    given = answers({"near": 0.2, "far": 2.0}, words=words)
    with pytest.raises(Refused, match=f"have {len({*words} - {None})} different labels .*similarity of near needs two"):
        teachers.task_similarity(vectors={"near": "near"}, label="words")(given, MANY, 0)


def test_features_without_a_spread_are_like_nothing() -> None:
    same, labels = np.ones((6, 3)), np.arange(6) % 2
    assert (teachers.parc(same, labels), teachers.h_score(same, labels)) == (0.0, 0.0)
    # All are nearest to the first, and that to the second.
    assert teachers.knn(same, labels) == pytest.approx(2 / 6)
