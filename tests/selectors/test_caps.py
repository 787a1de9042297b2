"""Caps and quotas hold, inside them the best come first, and what cannot be meant is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import Refused
from pipeline.kinds.selector import Budget
from pipeline.selectors import caps
from tests.selectors.given import rows

DOMAINS = np.array(["a"] * 50 + ["b"] * 40 + ["c"] * 10, object)
SEVERAL = Budget(one_per_prompt=False)


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        (None, {"a": 20, "b": 20, "c": 10}),
        ({"a": 0.5, "c": 0.5}, {"a": 30, "b": 0, "c": 10}),
        ({"b": 0.25}, {"a": 0, "b": 15, "c": 0}),
    ],
)
def test_a_domain_gets_its_quota_and_what_it_cannot_use_is_left(
    quotas: dict[str, float] | None, expected: dict[str, int]
) -> None:
    value = np.arange(100.0)
    decision = caps.per_domain(by="s", quotas=quotas)(rows(100, domains=DOMAINS, s=value), Budget(rows=60), 0)
    for domain, count in expected.items():
        of = domain == DOMAINS
        assert decision.kept[of].sum() == count
        assert value[of & decision.kept].tolist() == sorted(value[of])[of.sum() - count :]
    unnamed = np.isin(DOMAINS, list(quotas or "abc"), invert=True)
    assert set(decision.reason[unnamed]) <= {"no_quota"}
    assert set(decision.reason[~unnamed & ~decision.kept]) <= {"over_quota"}


@pytest.mark.parametrize(
    ("quotas", "says"), [({"a": 0.6, "b": 0.5}, "sum to 1.1"), ({"a": 0.5, "d": 0.1}, "no answer is of d; .* a, b, c")]
)
def test_quotas_that_cannot_be_meant_are_refused(quotas: dict[str, float], says: str) -> None:
    with pytest.raises(Refused, match=says):
        caps.per_domain(by="s", quotas=quotas)(rows(100, domains=DOMAINS, s=np.zeros(100)), Budget(rows=60), 0)


@pytest.mark.parametrize(("budget", "most", "expected"), [
    (SEVERAL, 2, [1, 2, 4, 5]), (SEVERAL, 9, [0, 1, 2, 3, 4, 5]), (Budget(), 2, [1, 5]),
    (Budget(rows=3, one_per_prompt=False), 2, [1, 4, 5]),
])  # fmt: skip
def test_of_a_prompt_the_best_are_kept(budget: Budget, most: int, expected: list[int]) -> None:
    prompts = np.array([*"pppqqq", "q"], object)
    given = rows(7, prompts=prompts, s=np.array([1.0, 3.0, 2.0, 1.0, 4.0, 5.0, np.nan]))
    decision = caps.per_prompt(by="s", most=most)(given, budget, 0)
    assert np.flatnonzero(decision.kept).tolist() == expected
    assert decision.reason[6] == "no_value"
    assert ("over_cap" in decision.reason) == (most == 2 and not budget.one_per_prompt)


def test_of_a_cluster_the_best_are_kept() -> None:
    rng = np.random.default_rng(0)
    cluster = np.arange(40) // 10
    points = np.eye(4)[cluster] + rng.normal(0, 0.02, (40, 4))
    points[0] = 0.0
    decision = caps.per_cluster(by="s", vector="v", most=3, clusters=4)(
        rows(40, v=points, s=np.arange(40.0)), SEVERAL, 0
    )
    assert np.flatnonzero(decision.kept).tolist() == [7, 8, 9, 17, 18, 19, 27, 28, 29, 37, 38, 39]
    assert decision.reason[0] == "no_vector" and set(decision.reason[1:7]) == {"over_cap"}
