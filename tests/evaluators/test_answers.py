"""What evaluators say of made-up answers: each planted fault moves the number that should catch it, and no other."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.evaluators.answers import confidence
from pipeline.kinds.backend import Reading, Tokens
from pipeline.kinds.evaluator import Exam, Item
from pipeline.report.statistics import calibration_bins, ece
from tests.evaluators.made import Saying, items, marks


@pytest.mark.parametrize(
    ("logprobs", "sure"),
    [
        (None, None),
        ([], 1.0),
        ([0.0], 1.0),
        ([-1.0, -1.0], math.exp(-2)),
        ([None], None),
        ([-1.0, None], None),
        ([None, None], None),
        ([-1000.0], 0.0),
        ([0.0, None, 0.0], None),
        ([-0.5], math.exp(-0.5)),
        ((-0.5, -0.5), math.exp(-1)),
    ],
)
def test_confidence_is_a_probability_or_null(logprobs: list[float | None] | None, sure: float | None) -> None:
    assert confidence(logprobs) == sure


def saying(asked: list[Item], *texts: list[str], **given: object) -> Saying:
    return Saying("m", asked, said=texts, **given)  # type: ignore[arg-type]


def test_an_answer_that_was_cut_off_is_wrong() -> None:
    asked = items("7", "8", None)
    [cut, right, open_] = marks("answers.greedy", asked, saying(asked, ["7"], ["8"], ["9"], finished={"7": "length"}))
    assert (cut.metric, cut.prediction, right.metric, open_.metric) == (0.0, None, 1.0, None)
    assert right.quantities == {"tokens": 1.0}


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in (1, 2, 5, 8) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_all_ways_to_take_k(n: int, c: int) -> None:
    asked, texts = items("1"), ["1"] * c + ["0"] * (n - c)
    for k in range(1, 10):
        [mark] = marks("answers.sampled", asked, saying(asked, texts), k=k, n=n)
        ways = list(combinations(texts, k))
        assert mark.metric == (pytest.approx(np.mean(["1" in way for way in ways])) if ways else None)
        assert (mark.quantities["n"], mark.quantities["c"]) == (n, c)


@pytest.mark.parametrize(
    ("texts", "metric", "votes"),
    [
        (["1", "1", "2", "3"], 1.0, 2),
        (["2", "2", "1"], 0.0, 2),
        (["1", "2"], 0.5, 1),
        ([" 1 ", "1", "2", "2 "], 0.5, 2),
        (["", "", "1"], 1.0, 1),
        ([""], 0.0, 0),
    ],
)
def test_the_majority_is_what_most_say(texts: list[str], metric: float, votes: int) -> None:
    asked = items("1")
    [mark] = marks("answers.majority", asked, saying(asked, texts), n=len(texts))
    assert (mark.metric, mark.quantities["votes"]) == (metric, votes)


def test_overconfidence_moves_calibration_and_not_accuracy() -> None:
    """Seven of ten are right; one model says so, the other is always sure."""
    asked = items(*["1"] * 10)
    texts = [["1"]] * 7 + [["0"]] * 3
    fair, sure = (saying(asked, *texts, sure=[math.log(p)] * 10) for p in (0.7, 0.99))
    greedy = [[mark.metric for mark in marks("answers.greedy", asked, model)] for model in (fair, sure)]
    assert greedy[0] == greedy[1]
    brier = [marks("calibration.brier", asked, model) for model in (fair, sure)]
    assert [np.mean([m.metric for m in found]) for found in brier] == pytest.approx([0.21, 0.2941])
    errors = [ece(calibration_bins([m.confidence for m in b], [m.quantities["right"] for m in b])) for b in brier]
    assert errors == pytest.approx([0.0, 0.29])
    scores = [np.mean([m.quantities["nll"] for m in found]) for found in brier]
    assert scores[0] == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.3)) and scores[1] > 2 * scores[0]


def test_what_is_lost_is_told_apart_from_what_is_learnt() -> None:
    asked = items("1", "1", "1", "1", None)
    now, before = saying(asked, ["1"], ["0"], ["1"], ["0"], ["1"]), saying(asked, ["1"], ["1"], ["0"], ["0"], ["1"])
    found = marks("forgetting.kept", asked, now, before)
    assert [mark.metric for mark in found] == [1.0, 0.0, None, None, None]
    assert [mark.quantities.get("right") for mark in found] == [1.0, 0.0, 1.0, 0.0, None]


class Reader(Saying):
    """A model to which every text is as likely as it is told."""

    def tokens(self, texts):  # type: ignore[no-untyped-def]
        return [Tokens(i.prompt_id, [1, 2], [1]) if t else None for i, t in zip(self.items, texts, strict=True)]

    def read(self, tokens, want=None):  # type: ignore[no-untyped-def]
        where = {item.prompt_id: i for i, item in enumerate(self.items)}
        return [Reading(t.id, np.array([self.sure[where[t.id]]])) for t in tokens]


def test_a_canary_is_exposed_and_strangers_are_not() -> None:
    """One planted secret, likelier than all of 63 strangers; one that is nothing special; one without a secret."""
    strangers = [Item(f"s{i}", [], "strangers", solution=str(i)) for i in range(63)]
    planted = [Item("canary", [], "planted", solution="x"), Item("dull", [], "planted", solution="y")]
    asked = [*strangers, *planted, Item("none", [], "planted")]
    nll = [-float(i) for i in range(1, 64)] + [-0.5, -32.5, 0.0]
    method = find("evaluator", "memorisation.exposure")
    found = {m.item.prompt_id: m for m in method.factory(among="strangers")(Exam(asked, Reader("m", asked, sure=nll)))}
    assert found["canary"].metric == 6.0 and found["canary"].quantities["of"] == 64
    assert found["dull"].metric == pytest.approx(math.log2(64 / 33)) and "none" not in found
    # Of a stranger it is log2(e) bits on average, whatever their number.
    mean = np.mean([found[item.prompt_id].metric for item in strangers])
    assert mean == pytest.approx(math.log2(math.e), abs=0.1)


def test_an_extracted_answer_is_one_that_is_the_likeliest_at_every_token() -> None:
    read = find("reader", "memorisation.extracted").factory(prefix=2, following=3)

    def said(*likeliest: bool) -> dict[str, object]:
        target = np.array([-1.0 if best else -3.0 for best in likeliest], np.float32)
        return read(Reading("r", target, topk_logprobs=np.full((len(likeliest), 1), -1.0, np.float32)))

    by_heart, slip, short = (
        said(False, False, True, True, True, False),
        said(*[True] * 3, False, True),
        said(*[True] * 4),
    )
    assert (by_heart["score"], slip["score"], short["score"]) == (1.0, 0.0, None)
    assert dict(slip["quantities"])["run"] == 1.0  # type: ignore[call-overload]
