"""What holds for every scorer: it sees siblings, not order nor parts, and its quantities make its score."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.contracts import RESPONSES, SCORES
from pipeline.core.methods import available, find

# For each scorer, its score from its quantities.
FROM_QUANTITIES: dict[str, Callable[[dict[str, float]], float]] = {
    "consistency.agreement": lambda q: q["votes"] / q["samples"],
    "consistency.entropy": lambda q: q["entropy"],
    "consistency.margin": lambda q: q["margin"],
    "heuristic.format": lambda q: q["has_answer"] * q["stopped"],
    "verifier.correct": lambda q: q["correct"],
}
NAMES = available("scorer")


@pytest.fixture(scope="module")
def responses() -> pa.Table:
    """Answers of two models to twelve prompts: some unread, some failed, some prompts without a reference."""
    random = np.random.default_rng(5)
    rows = []
    for prompt in range(12):
        for model in ("teacher", "base"):
            for sample in range(5):
                failed = random.random() < 0.1
                answer = str(random.integers(3)) if not failed and random.random() < 0.8 else None
                rows.append(
                    {
                        "response_id": f"{prompt}-{model}-{sample}",
                        "request_id": "r",
                        "prompt_id": f"p{prompt}",
                        "messages": [],
                        "domain": "d",
                        "verifier": None if prompt == 3 else "text.marked",
                        "reference": None if prompt == 4 else "1",
                        "entry": model,
                        "model_id": model,
                        "sample": sample,
                        "seed": sample,
                        "content": None if failed else f"so it goes so it goes #{answer}",
                        "answer": answer,
                        "finish_reason": "error" if failed else str(random.choice(["stop", "length"])),
                        "error": "no route" if failed else None,
                    }
                )
    return pa.Table.from_batches([RESPONSES.rows(rows)])


def scores(name: str, rows: pa.Table) -> dict[str, dict]:
    """Record id to row of the table `scores`, exactly as the stage would write it."""
    method = find("scorer", name)
    keys = {"response_id": rows["response_id"], "prompt_id": rows["prompt_id"]}
    batch = SCORES.batch(**keys, **method.factory()(rows.select(method.traits["reads"])))
    return {row["response_id"]: row for row in batch.to_pylist()}


def test_every_scorer_is_here() -> None:
    assert set(FROM_QUANTITIES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_order_means_nothing(name: str, responses: pa.Table) -> None:
    shuffled = responses.take(np.random.default_rng(1).permutation(len(responses)))
    assert scores(name, shuffled) == scores(name, responses)


@pytest.mark.parametrize("name", NAMES)
def test_parts_mean_nothing(name: str, responses: pa.Table) -> None:
    """Parts never cut siblings apart, so scoring part by part is scoring the whole."""
    half = pa.array([int(prompt[1:]) % 2 == 0 for prompt in responses["prompt_id"].to_pylist()])
    parts = [responses.filter(half), responses.filter(pc.invert(half)), responses.slice(0, 0)]
    together = {key: row for part in parts for key, row in scores(name, part).items()}
    assert together == scores(name, responses)


@pytest.mark.parametrize("name", NAMES)
def test_another_entrys_answers_change_nothing(name: str, responses: pa.Table) -> None:
    alone = scores(name, responses.filter(pc.equal(responses["entry"], "teacher")))
    assert alone == {key: row for key, row in scores(name, responses).items() if key in alone}


@pytest.mark.parametrize("name", NAMES)
def test_null_and_never_nan(name: str, responses: pa.Table) -> None:
    found = scores(name, responses).values()
    numbers = [n for row in found for n in (row["score"], *dict(row["quantities"]).values()) if n is not None]
    assert np.isfinite(numbers).all()
    assert any(row["score"] is None for row in found)
    assert any(row["score"] is not None for row in found)


@pytest.mark.parametrize("name", NAMES)
def test_quantities_make_the_score(name: str, responses: pa.Table) -> None:
    for row in scores(name, responses).values():
        if row["score"] is not None:
            assert FROM_QUANTITIES[name](dict(row["quantities"])) == row["score"]
