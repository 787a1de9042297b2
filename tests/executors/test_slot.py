"""A worker that is spoken to over a pipe: what it makes, says and asks for, and when it refuses."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.parts import Done, Task
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance, stage_named
from pipeline.errors import CapReached, GateFailed, Refused
from pipeline.executors import slot
from pipeline.kinds.backend import Reading
from pipeline.memo import home
from pipeline.memo.claims import claimed, let_go
from pipeline.memo.ledger import Ledger
from pipeline.memo.memo import Memo

FORKS = multiprocessing.get_context("fork")


class Told:
    """A worker in the place of a real one, which is told by a test what a part comes to."""

    work: Callable[[int], Done]

    def __init__(self, task: Task) -> None: ...

    def __call__(self, part: int) -> Done:
        return Told.work(part)

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.chdir(tmp_path)
    params = stage_named("score").params.model_validate({"of": "responses/train", "use": "consistency.agreement"})
    one = Instance("score", "a", params, {"responses": ("responses/train/a",)}, "scores/responses/train/a", "code")
    (tmp_path / "data" / "plan").mkdir(parents=True)
    (tmp_path / "data" / "plan" / "score.json").write_text("{}", "utf-8")
    (tmp_path / "scratch").mkdir()
    return Task(one.to_json(), RunSettings().model_dump_json(), "data", ".", "scratch")


def expected() -> dict[str, str]:
    return slot.sees(Path("data"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: Path("scratch").rmdir(), "the node n1 does not see .*scratch.*another folder"),
        (lambda: Path("data/plan/score.json").write_text("{ }", "utf-8"), "the node n1 reads another .*data/plan"),
        (lambda: _written("methods/scorers/mine.py", "x = 1"), "the node n1 has another version of this package"),
        (lambda: None, None),
    ],
)
def test_a_node_that_is_not_the_run_s_says_in_what(change: Callable[[], Any], said: str | None, task: Task) -> None:
    before = expected()
    change()
    found = slot.unlike(task, before, "n1")
    assert (found is None) if said is None else re.search(said, found or "")


def test_a_node_with_another_package_says_which(task: Task) -> None:
    found = slot.unlike(task, expected() | {"pyarrow": "1.0"}, "n1")
    assert found is not None and re.search(r"the node n1 has pyarrow \d+.* and not 1.0", found)


def _written(file: str, text: str) -> None:
    Path(file).parent.mkdir(parents=True)
    Path(file).write_text(text, "utf-8")


@contextmanager
def served(task: Task, work: Callable[[int], Done], monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A worker in a process of its own, and the pipe to it."""
    Told.work = staticmethod(work)
    monkeypatch.setattr(slot, "Worker", Told)
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_serve, args=(theirs,))
    process.start()
    theirs.close()
    ours.send("n1")
    ours.send((task, expected()))
    try:
        yield ours
        ours.send(None)
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()


def _serve(connection: Connection) -> None:
    pipe = slot.Pipe(connection)
    with redirect_stderr(slot.Said(pipe)):
        slot.serve(pipe)


def answer(pipe: Connection, part: int) -> tuple[Any, list[str]]:
    """What a part came to, and what was said; calls of the memo's are made here."""
    pipe.send(part)
    said: list[str] = []
    while True:
        what, content = pipe.recv()
        if what == "done":
            return pickle.loads(content), said
        if what == "said":
            said.append(content)
        else:
            pipe.send(home.make(pickle.loads(content), part))


def test_parts_come_back_with_the_node_and_what_was_said(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(part: int) -> Done:
        print("a line", "of two", file=sys.stderr)
        print("and half", end="", file=sys.stderr)
        print(" of another", file=sys.stderr)
        return Done(part, 7, 0.5)

    with served(task, work, monkeypatch) as pipe:
        for part in (3, 1):
            assert answer(pipe, part) == (Done(part, 7, 0.5, "n1"), ["a line of two", "and half of another"])


class Odd(Exception):
    """Cannot be sent."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind", "code", "traced"),
    [
        (GateFailed("did not pass"), GateFailed, 65, False),
        (KeyError("none"), KeyError, None, True),
        (Odd(1, 2), RuntimeError, None, True),
    ],
)
def test_an_error_comes_back_as_it_is(
    error: Exception, kind: type, code: int | None, traced: bool, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(part: int) -> Done:
        raise error

    with served(task, work, monkeypatch) as pipe:
        found, said = answer(pipe, 0)
    assert type(found) is kind and getattr(found, "exit_code", None) == code
    assert any("Traceback" in line for line in said) == traced


def test_a_node_that_does_not_fit_refuses_every_part(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(task, scratch="elsewhere")
    with served(other, lambda part: Done(part, 1), monkeypatch) as pipe:
        found, _ = answer(pipe, 0)
    assert isinstance(found, Refused) and "score@a: the node n1 does not see" in str(found)


def test_the_memo_is_opened_by_the_other_side_alone(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, readings, claims and spending; an error of a call is raised where it was made."""
    folder = Path("data", ".memo")

    def work(part: int) -> Done:
        memo, ledger = Memo(folder), Ledger(folder, "teacher", 100, None)
        with claimed(memo, ["a", "b"]) as ours:
            memo.put({key: {"n": np.int64(3)} for key in ours}, paid=True)
        memo.put_readings({"r": Reading("r", np.array([1.5], np.float32))})
        memo.note((key, "p") for key in ["r"])
        assert memo.get(iter(["a", "b", "c"])) == {"a": {"n": 3}, "b": {"n": 3}}
        assert memo.readings(["r"])["r"].target_logprob.tolist() == [1.5]
        ledger.reserve(90, 0.0)
        with pytest.raises(CapReached, match="max_tokens"):
            ledger.reserve(20, 0.0)
        ledger.settle(90, 0.0, 60, 0.1)
        assert memo._opened is None and ledger.store._opened is None
        return Done(part, ledger.spent().tokens)

    with served(task, work, monkeypatch) as pipe:
        found, said = answer(pipe, 0)
    assert (found, said) == (Done(0, 60, None, "n1"), [])
    assert sorted(Memo(folder).get(["a", "b"])) == ["a", "b"] and not [*folder.glob("claim-*")]


def test_what_a_lost_worker_had_claimed_is_let_go(tmp_path: Path) -> None:
    memo, call = Memo(tmp_path), ("pipeline.memo.claims", "_claim")
    name, ours = home.make((*call, (memo, ["a", "b"]), {}), 4)
    assert ours == {"a", "b"}
    with claimed(memo, ["a", "c"]) as free:
        assert free == {"c"}
    let_go(3)
    with claimed(memo, ["a"]) as free:
        assert free == set()
    let_go(4)
    with claimed(memo, ["a", "b"]) as free:
        assert free == {"a", "b"}
    home.make(("pipeline.memo.claims", "_release", (memo, name), {}), 4)  # it comes late, and does nothing


def test_nothing_else_than_the_memos_calls_is_made_at_home(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    made = home.make(("shutil", "rmtree", (str(there),), {}), 1)
    assert isinstance(made, LookupError) and str(made) == "shutil.rmtree is no call that is made at home"
    assert there.is_dir()
