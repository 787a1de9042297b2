"""Programs and their tests: what passes, what fails, what is missing, and the strategy of EvoSyn."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.bounded import Limits
from pipeline.errors import Refused
from pipeline.sandbox import Run, unsafe
from pipeline.scorers import program
from pipeline.scorers.program import Verdict, strategy, verdict_of
from pipeline.text import programs
from tests.scorers.scored import score, scored, votes

LIMITS = Limits(seconds=20, memory=500_000_000)
ADD = "def add(a, b):\n    return a + b\n"
TESTS = json.dumps(["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add('a', 'b') == 'ab'"])
# They are harmless, so that they may run where there are no walls.
WALLS = "unshare" if unsafe() is None else "none"


def fenced(*blocks: str) -> str:
    return "Here it is.\n" + "\n".join(f"```python\n{block}\n```" for block in blocks)


def written(*contents: str | None, reference: str | None = TESTS) -> dict[str, list]:
    n = len(contents)
    return {
        **votes(*contents),
        "content": pa.array(contents, pa.string()),
        "reference": pa.array([reference] * n, pa.string()),
    }


@pytest.mark.parametrize(
    ("content", "passed"),
    [
        (ADD, 3),
        (fenced(ADD), 3),
        (fenced(ADD, "this is no program"), 3),
        ("from __future__ import annotations\n" + ADD, 3),
        (ADD + "if __name__ == '__main__':\n    input()\n", 3),
        ("def add(a, b):\n    return 3 if a else 0\n", 2),
        ("def add(a, b):\n    return a - b\n", 1),
        ("def add(a, b:\n", 0),
        ("", 0),
        ("import sys\nsys.exit(0)\n", 0),
        ("import os\nos._exit(0)\n", 0),
        ("def add(a, b):\n    import os\n    os._exit(0)\n", 0),
        ("def add(a, b):\n    raise SystemExit\n", 0),
        ("print('passed')\n", 0),
    ],
)
def test_a_program_passes_the_tests_that_it_comes_to_the_end_of(content: str, passed: int) -> None:
    scores, [quantities] = score("program.tests", written(content), sandbox=WALLS)
    assert scores == [passed / 3]
    assert quantities == {"passed": passed, "late": 0, "missing": 0, "tests": 3}


@pytest.mark.parametrize("reference", ["assert add(1, 2) == 3", '{"add": 3}', "3", "[1, 2]"])
def test_what_is_no_list_of_tests_is_one_test(reference: str) -> None:
    assert score("program.tests", written(ADD, reference=reference), sandbox=WALLS)[0] == [1]


def test_where_nothing_can_be_tested_the_score_is_null() -> None:
    assert score("program.tests", written(ADD, reference=None), sandbox=WALLS)[0] == [None]
    assert score("program.tests", written(ADD, reference="[]"), sandbox=WALLS)[0] == [None]
    assert score("program.tests", written(None), sandbox=WALLS)[0] == [None]
    assert score("program.tests", written(), sandbox=WALLS)[0] == []
    rows = {**written(ADD), "error": pa.array(["no route"])}
    assert score("program.tests", rows, sandbox=WALLS)[0] == [None]


def test_a_program_that_never_ends_fails_and_is_counted_late() -> None:
    rows = written("def add(a, b):\n    while a == 1: pass\n    return a + b\n")
    scores, [quantities] = score("program.tests", rows, seconds=6.0, sandbox=WALLS)
    assert scores == [2 / 3] and quantities["late"] == 1


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Run(None, "unshare: no memory"), "missing"),
        (Run(None, "", late=True), "missing"),
        (Run(-signal.SIGKILL, ""), "missing"),
        (Run(-signal.SIGKILL, "", late=True), "late"),
        (Run(-signal.SIGSEGV, ""), "failed"),
        (Run(0, ""), "failed"),
        (Run(1, "AssertionError"), "failed"),
    ],
)
def test_what_the_machine_fails_is_missing(monkeypatch: pytest.MonkeyPatch, found: Run, expected: Verdict) -> None:
    monkeypatch.setattr(program, "run", lambda *_: found)
    verdict_of.cache_clear()
    assert verdict_of("", "", LIMITS, "none") == expected
    rows = written("")
    scores, _ = score("program.tests", rows, sandbox="none")
    assert scores == [None if expected == "missing" else 0]
    verdict_of.cache_clear()


def printed(
    *contents: str | None, verifier: str | None = "numeric.last", reference: str | None = "12"
) -> dict[str, list]:
    return {**written(*contents, reference=reference), "verifier": pa.array([verifier] * len(contents), pa.string())}


@pytest.mark.parametrize(
    ("content", "right", "failed"),
    [
        ("print(3 * 4)", 1, 0),
        (fenced("a = 3\nprint(a * 4)", "print(1)"), 1, 0),
        ("print('It is', 12, 'in all.')", 1, 0),
        ("if __name__ == '__main__':\n    print(12.0)", 1, 0),
        ("import warnings\nwarnings.warn('99')\nprint(12)", 1, 0),
        ("print(13)", 0, 0),
        ("x = 12", 0, 0),
        ("", 0, 0),
        ("12", 0, 0),
        ("print(12)\nraise ValueError", 0, 1),
        ("print(12)\nimport os\nos._exit(0)", 0, 1),
        ("The answer is 12.", 0, 1),
    ],
)
def test_a_program_is_right_if_it_prints_the_reference(content: str, right: int, failed: int) -> None:
    scores, [quantities] = score("program.output", printed(content), sandbox=WALLS)
    assert (scores, quantities) == ([right], {"correct": right, "late": 0, "failed": failed})


def test_where_no_output_can_be_judged_the_score_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    say = "print(12)"
    for rows in (printed(say, verifier=None), printed(say, reference=None), printed(None)):
        assert score("program.output", rows, sandbox=WALLS)[0] == [None]
    assert score("program.output", {**printed(say), "error": pa.array(["no route"])}, sandbox=WALLS)[0] == [None]
    assert score("program.output", printed(), sandbox=WALLS)[0] == []
    monkeypatch.setattr(programs, "run", lambda *_: Run(None, "unshare: no memory"))
    programs.execute.cache_clear()
    assert score("program.output", printed(say), sandbox=WALLS)[0] == [None]
    programs.execute.cache_clear()


def test_a_program_that_runs_out_of_time_prints_nothing_right() -> None:
    scores, [quantities] = score(
        "program.output", printed("print(12, flush=True)\nwhile True: pass"), seconds=3.0, sandbox=WALLS
    )
    assert (scores, quantities["late"]) == ([0], 1)


def test_without_walls_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sandbox.unsafe", lambda: "it has no unshare")
    with pytest.raises(Refused, match="sandbox: none"):
        score("program.tests", written("x = 'never run before'"))


def test_programs_and_tests_of_siblings_are_run_across() -> None:
    right, wrong, always = "assert add(2, 3) == 5", "assert add(2, 3) == 6", "assert True"
    less = "def add(a, b):\n    return a - b\n"
    rows = written(fenced(ADD, right), fenced(less, wrong), fenced(ADD, always), fenced(less), None)
    found = scored("program.cross", rows, sandbox=WALLS)
    assert found["score"].to_pylist() == [2 / 3, 1 / 3, 2 / 3, 1 / 3, None]
    assert found["vector"].to_pylist() == [[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1], None]
    quantities = [dict(row) for row in found["quantities"].to_pylist()]
    assert [q["test_rank"] for q in quantities] == [1, 3, 2, 0, 0]
    assert [q["constant"] for q in quantities[:3]] == [0, 1, 1]
    assert {q["varied"] for q in quantities[:4]} == {1}


def test_alone_or_without_tests_there_is_nothing_to_learn() -> None:
    scores, quantities = score("program.cross", written(fenced(ADD, "assert add(1, 1) == 2")), sandbox=WALLS)
    assert scores == [1] and quantities[0]["constant"] == 1 and quantities[0]["varied"] == 0
    assert score("program.cross", written(fenced(ADD), fenced(ADD)), sandbox=WALLS)[0] == [None, None]
    assert score("program.cross", written(), sandbox=WALLS)[0] == []


def test_a_missing_run_is_in_no_mean() -> None:
    found = strategy(np.array([[1, 1, np.nan], [1, 0, 0], [0, 0, 1]]))
    assert found.solves.tolist() == [1, 1 / 3, 1 / 3]
    assert found.discriminates == pytest.approx([2 / 3 - 1 / 3, 1 - 1 / 3, 1 / 3 - 1 / 3])
    assert found.constant.tolist() == [False, False, False]
    nothing = strategy(np.full((2, 2), np.nan))
    assert nothing.solves.tolist() == [0, 0] and nothing.constant.all() and not nothing.varied


@pytest.mark.parametrize("passed", [0.0, 1.0])
def test_where_all_pass_or_all_fail_nothing_varies(passed: float) -> None:
    assert not strategy(np.full((16, 16), passed)).varied


GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "data" / "selection_evosyn.npz"))


def consistent(solution: int, test: int, order: np.ndarray, matrix: np.ndarray, human: np.ndarray) -> bool:
    """The evaluator of EvoSyn: the best program is right, and the best test says of the eight best and the eight worst
    programs what people say."""
    ends = np.r_[order[:8], order[-8:]]
    return bool(human[solution] and (matrix[ends, test] == human[ends]).all())


@pytest.mark.parametrize("instance", range(len(GOLDEN["pass_matrix"])))
def test_programs_and_tests_are_ranked_as_by_the_released_strategy(instance: int) -> None:
    matrix = GOLDEN["pass_matrix"][instance]
    found = strategy(matrix.astype(np.float64))
    assert np.argsort(-found.solves, kind="stable").tolist() == GOLDEN["best_sol"][instance].tolist()
    # Tests may tie, so their scores are compared.
    ranked = found.discriminates[GOLDEN["best_test"][instance]]
    np.testing.assert_allclose(ranked, np.sort(found.discriminates)[::-1], rtol=0, atol=1e-12)
    guarded = np.lexsort((np.arange(16), -found.discriminates, found.constant))
    assert guarded[0] == GOLDEN["ours_nonconstant_best_test"][instance]
    assert not found.constant[guarded[0]] or found.constant.all()


def test_the_guard_against_constant_tests_makes_the_strategy_consistent() -> None:
    """More than three times as often as counting what passes, which likes tests that are always passed."""
    scores: dict[str, list[bool]] = {"counted": [], "released": [], "guarded": []}
    for i, (matrix, human) in enumerate(zip(GOLDEN["pass_matrix"], GOLDEN["human_verdict"], strict=True)):
        order = GOLDEN["best_sol"][i]
        best = GOLDEN["init_test"][i][0], GOLDEN["best_test"][i][0], GOLDEN["ours_nonconstant_best_test"][i]
        for found, test in zip(scores.values(), best, strict=True):
            found.append(consistent(order[0], test, order, matrix, human))
    assert scores["released"] == GOLDEN["best_crit"].tolist()
    assert scores["guarded"] == GOLDEN["ours_nonconstant_crit"].tolist()
    share = {name: np.mean(found) for name, found in scores.items()}
    assert share["guarded"] >= 0.7 and share["guarded"] >= 3 * max(share["counted"], 0.05)
