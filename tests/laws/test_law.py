"""The laws on a user's own method: `stillhouse methods --check` says in words what it breaks; the suite does not."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.commands.parser import parser
from pipeline.core import methods
from pipeline.errors import Refused
from pipeline.laws import law

SCORER = '''
from pipeline.kinds.scorer import quantities_of, scorer
import numpy as np
import pyarrow as pa


@scorer(reads=("content",), score="{formula}")
def length(*, least: int = 3):
    """Characters."""
    def score(rows):
        sizes = np.array([len(text or "") for text in rows["content"].to_pylist()], float)
        return {{"score": pa.array({score}, mask=sizes == 0), "quantities": quantities_of(characters=sizes)}}
    return score
'''
SELECTOR = '''
from pipeline.kinds.selector import Sql, Vector, decide, selector


@selector(random=False)
def all(*, by: Sql, near: Vector, share: float):
    """Everything."""
    return lambda candidates, budget, seed: decide(candidates, budget, range(len(candidates[by])), "all")
'''
OBJECTIVE = '''
from pipeline.kinds.objective import Loss, objective


@objective(reads=("student_NV", "target_N", "weight_N"), item="place", teacher="none", divergence=False)
def plain():
    """Cross-entropy, averaged."""
    def loss(view):
        log_q = view.student_NV.log_softmax(1)
        return Loss(-log_q.gather(1, view.target_N[:, None]).mean()[None], view.weight_N)
    return loss
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Puts a text where a user's own methods of a kind stand, and forgets it in the end."""
    monkeypatch.setattr(methods, "ROOT", tmp_path)

    def put(kind: str, text: str) -> None:
        folder = tmp_path / methods.KINDS[kind]
        folder.mkdir()
        (folder / "mine.py").write_text(text, "utf-8")
        module = types.ModuleType(f"pipeline.{methods.KINDS[kind]}.mine")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        methods.available.cache_clear()
        methods.find.cache_clear()
        try:
            exec(compile(text, "mine.py", "exec"), module.__dict__)
        except SyntaxError:
            return

    yield put
    monkeypatch.undo()
    methods.available.cache_clear()
    methods.find.cache_clear()


def check(*command: str) -> None:
    given = vars(parser("methods").parse_args(["methods", *command]))
    run = given.pop("run")
    given.pop("verb")
    run(**given)


def test_a_sound_method_keeps_every_law(mine: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    mine("scorer", SCORER.format(formula="characters", score="sizes"))
    check("--check", "mine.length")
    assert capsys.readouterr().out == "scorer mine.length keeps every law\n"


@pytest.mark.parametrize(
    ("kind", "text", "name", "said"),
    [
        (
            "scorer", SCORER.format(formula="characters", score="sizes / 3"), "mine.length",
            "Its quantities make its score, by the SQL of its trait `score`. Declare",
        ),
        (
            "scorer", SCORER.format(formula="characters", score="sizes - sizes.mean()"), "mine.length",
            "Scoring part by part is scoring the whole, and a part may be empty.",
        ),
        ("selector", SELECTOR, "mine.all", "The budget is kept, and so is one answer per prompt. Take what fits"),
        ("objective", OBJECTIVE, "mine.plain", "There is one value and one weight per item. Give tensors"),
    ],
)  # fmt: skip
def test_a_broken_method_is_told_which_law_it_breaks_and_what_to_do(
    mine: Callable[[str, str], None], kind: str, text: str, name: str, said: str
) -> None:
    mine(kind, text)
    with pytest.raises(Refused) as refused:
        check(kind, "--check", name)
    assert any(line.startswith(f"{kind} {name} breaks a law: {said}") for line in str(refused.value).splitlines())


def test_what_cannot_be_made_up_is_asked_for(mine: Callable[[str, str], None]) -> None:
    mine("scorer", SCORER.format(formula="characters", score="sizes").replace("least: int = 3", "least: dict"))
    with pytest.raises(Refused, match=r"mine\.length cannot be tried: its parameter 'least' has no default"):
        check("--check", "mine.length")


def test_a_kind_without_laws_for_one_method_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be held to the laws of a backend; builder, evaluator, exporter, judge"):
        check("--check", "local.model")
    with pytest.raises(Refused, match=r"no method of any kind is called 'mine\.nothing'"):
        check("--check", "mine.nothing")


def test_a_file_that_is_no_python_is_named_and_breaks_nothing_else(mine: Callable[[str, str], None]) -> None:
    mine("scorer", "def length(:\n")
    assert methods.available("scorer") == () == methods.shipped("scorer")
    with pytest.raises(Refused, match=r"scorers/mine\.py is no Python \(line 1: "):
        methods.find("scorer", "mine.length")


def test_no_users_own_method_is_under_the_suites_laws(mine: Callable[[str, str], None]) -> None:
    mine("scorer", SCORER.format(formula="characters", score="sizes / 3"))
    assert methods.available("scorer") == ("mine.length",) and methods.shipped("scorer") == ()


def test_the_arguments_that_are_tried() -> None:
    def tried(kind: str, name: str, **marked: str) -> list[dict]:
        return list(law.arguments(methods.find(kind, name), marked))

    assert tried("selector", "rank.top", number="score") == [{"by": "score"}]
    assert tried("selector", "mixture.gaps", number="score", gaps="main") == [
        {"gaps": "main"},
        {"gaps": "main", "prefer": 0.5, "floor": 0.5},
    ]
    words = [given["variant"] for given in tried("objective", "divergence.forward") if "variant" in given]
    assert words == ["code"]
