"""A claim needs its control, is weighed beside the others, and says what would decide it."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.core.stage import SECTION_OF
from pipeline.plan.disk import write
from pipeline.plan.resolve import resolve
from pipeline.report import arms
from pipeline.report.arms import Comparison, Evaluation, Line
from pipeline.report.claims import Lack, decides, lacks, weighed
from pipeline.report.curves import Effort
from pipeline.report.results import Answered, answer
from pipeline.report.statistics import Interval, holm, items_needed, over_seeds, paired_score, seeds_needed
from tests.stages import report_data

PARAMS = {key: value for key, value in report_data.PARAMS.items() if key in {*SECTION_OF.values(), "seed"}}


@pytest.mark.parametrize(
    ("given", "raised"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04], [0.02, 0.04]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        # Of five at 0.02 none is left; alone each would be.
        ([0.02] * 5, [0.1] * 5),
    ],
)
def test_holm_raises_each_by_those_that_are_left(given: list[float], raised: list[float]) -> None:
    assert holm(given) == pytest.approx(raised)


def test_of_twenty_comparisons_without_a_difference_few_runs_claim_one() -> None:
    """Uncorrected, two of three such pages claim something; corrected, one of twenty does."""
    rng, alone, together = np.random.default_rng(0), 0, 0
    for _ in range(200):
        p = [paired_score(*rng.integers(0, 2, (2, 200))).p or 1.0 for _ in range(20)]
        alone += min(p) <= 0.05
        together += min(holm(p)) <= 0.05
    assert alone > 100 and together < 20


def line(name: str) -> Line:
    return Line(name, (Evaluation(name, name, "bench"),))


def answered(first: str, second: str, interval: Interval, n: int = 400, **other: Any) -> Answered:
    return Answered(Comparison("control", line(first), line(second)), interval, n, None, **other)


def wins(n: int, only_first: int, only_second: int) -> Interval:
    first = np.r_[np.ones(only_first), np.zeros(n - only_first)]
    second = np.r_[np.zeros(only_first), np.ones(only_second), np.zeros(n - only_first - only_second)]
    return paired_score(first, second)


def test_a_difference_that_would_hold_alone_may_not_hold_beside_others() -> None:
    near, others = wins(400, 30, 14), [wins(400, 20, 20)] * 4
    assert answered("a", "b", near).verdict == "helps"
    first, *_ = weighed([answered("a", "b", near), *(answered("c", "d", o) for o in others)], {})
    assert first.verdict == "inconclusive" and first.corrected == pytest.approx(5 * near.p)
    [alone] = weighed([answered("a", "b", near)], {})
    assert alone.verdict == "helps" and alone.corrected == pytest.approx(near.p)


@pytest.mark.parametrize(("tokens", "claimed"), [(1000, True), (1010, True), (1020, False), (900, False)])
def test_unequal_tokens_are_no_claim(tokens: int, claimed: bool) -> None:
    efforts = {"a": Effort(10, tokens), "b": Effort(10, 1000)}
    [one] = weighed([answered("a", "b", wins(400, 60, 10))], efforts)
    assert (one.verdict == "helps", one.verdict == "no claim") == (claimed, not claimed)
    assert claimed or "not held to one budget" in (one.refused or "")


def test_what_would_decide_is_true_in_four_of_five_repetitions() -> None:
    seen = wins(400, 24, 16)
    wanted = items_needed(seen, 400, 0.05)
    assert wanted is not None and 1000 < wanted < 4000
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(300):
        drawn = rng.choice([1.0, -1.0, 0.0], wanted, p=[24 / 400, 16 / 400, 360 / 400])
        found += paired_score(drawn > 0, drawn < 0).low > 0
    assert 0.72 < found / 300 < 0.88


def test_seeds_are_told_where_seeds_disagree() -> None:
    rng = np.random.default_rng(2)
    table = np.repeat(np.array([[0.05], [-0.01], [0.03]]), 50, 1) + rng.normal(0, 1e-3, (3, 50))
    over = over_seeds(table)
    wanted = seeds_needed(over, 3, 0.05)
    assert wanted is not None and 5 < wanted < 20 and over.low < 0
    open_ = answered("a", "b", Interval(over.value, 0.001, 0.05, 0.04), seeds=3, over=over)
    assert f"{wanted - 3:,} more seeds, {wanted:,} in all" in (decides(open_) or "")


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (wins(400, 24, 16), "more items"),
        (wins(400, 20, 20), "No effect was seen"),
        (wins(400, 60, 10), None),
        (Interval(1e-5, -0.1, 0.1, 0.99), "more than ten million items"),
    ],
)
def test_an_inconclusive_comparison_ends_with_what_would_decide(interval: Interval, said: str | None) -> None:
    found = decides(answered("a", "b", interval))
    assert found is None if said is None else said in (found or "")


def lacking(tmp_path: Path, params: dict[str, Any]) -> list[Lack]:
    write(resolve(params), tmp_path)
    lineage = arms.read(tmp_path)
    return lacks(lineage, arms.comparisons(lineage))


def without(params: dict[str, Any], *models: str) -> dict[str, Any]:
    kept = copy.deepcopy(params)
    for model in models:
        del kept["train"][model], kept["evaluate"][model]
    return kept


def test_the_default_run_lacks_nothing(tmp_path: Path) -> None:
    assert lacking(tmp_path, PARAMS) == []


def test_a_selection_without_its_control_is_told_which_entries_to_add(tmp_path: Path) -> None:
    """And with these entries it lacks nothing."""
    params = without(PARAMS, "random_sft")
    del params["select"]["random"], params["pack"]["random"], params["quality"]["random_examples"]
    [one, two] = lacking(tmp_path / "before", params)
    assert {one.about, two.about} == {"coverage_sft: its selection", "kd: its selection"}
    assert "chosen at random" in one.why
    for section, entries in yaml.safe_load(one.entries).items():
        params[section].update(entries)
    assert params["select"]["coverage_random"]["budget_tokens"] == 2000
    assert lacking(tmp_path / "after", params) == []


def test_an_objective_without_cross_entropy_is_told_which_entries_to_add(tmp_path: Path) -> None:
    params = without(PARAMS, "coverage_sft")
    [lack] = lacking(tmp_path / "before", params)
    assert lack.about == "kd: its objective" and "text of the same rows alone" in lack.why
    for section, entries in yaml.safe_load(lack.entries).items():
        params[section].update(entries)
    assert params["train"]["kd_text"]["of"] == "examples/coverage" and params["train"]["kd_text"]["epochs"] == 3
    assert lacking(tmp_path / "after", params) == []


def test_one_measure_is_not_held_against_another(tmp_path: Path) -> None:
    """A student's pass@4 is compared with its control's pass@4, and with nobody's accuracy."""
    params = copy.deepcopy(PARAMS)
    drawn = {"use": "answers.sampled", "k": 4}
    for model in ("coverage_sft", "random_sft"):
        params["evaluate"][f"{model}_drawn"] = {"model": model, "pool": "bench", **drawn}
    params["compare"] = {"like": {"model": "kd", "against": "teacher", "pool": "bench", "use": "fidelity.answers"}}
    write(resolve(params), tmp_path)
    found = {(c.first.name, c.second.name) for c in arms.comparisons(arms.read(tmp_path))}
    assert ("coverage_sft_drawn", "random_sft_drawn") in found
    assert not {pair for pair in found if sum(name.endswith("_drawn") for name in pair) == 1 or "like" in pair}


def test_an_uninformative_selection_is_no_better_than_its_control() -> None:
    """A selection that is as good as chance moves the difference from its control to nothing, and no other number."""
    rng = np.random.default_rng(3)
    skill = rng.random(2000)

    def judged(name: str, lift: float) -> Any:
        right = (rng.random(2000) < np.clip(skill * 0.5 + lift, 0, 1)).astype(float)[None]
        return SimpleNamespace(items=np.arange(2000), of_domain=np.zeros(2000, int), names=("d",), right=right)

    lines = {"good": judged("good", 0.4), "dull": judged("dull", 0.25), "random": judged("random", 0.25)}
    told = weighed(
        [answer(Comparison("control", line(name), line("random")), lines, 0) for name in ("good", "dull")], {}
    )
    assert [a.verdict for a in told] == ["helps", "inconclusive"]
    assert decides(told[0]) is None and decides(told[1])
