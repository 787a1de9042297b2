"""vLLM's engine in a child that another Python runs: the same answers and readings, and an end with its parent."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.backends.vllm import VllmModel, _start
from pipeline.core.settings import RunSettings, Vllm
from pipeline.errors import Refused, TryAgain
from pipeline.kinds.backend import Answer, GenerateRequest, Reading, Sampling, Tokens, Want
from pipeline.model import engine
from tests.backends.test_http import served_folder
from tests.model.fake_vllm import write

ROOT = Path(__file__).parents[2]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=20)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model's folder, with a `vllm` that this Python and its children find until the test ends."""
    place = write(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.syspath_prepend(str(place))
    real = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "vllm"}
    yield served_folder(tmp_path / "teacher")
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]
    sys.modules.update(real)


def settings(child: bool = True, **options: object) -> RunSettings:
    return RunSettings(vllm=Vllm(python=sys.executable if child else None, max_num_seqs=2, **options))


@pytest.fixture
def model(folder: Path) -> Iterator[VllmModel]:
    made = settings()
    started = VllmModel(folder, _start(folder, "float32", made), made.vllm)
    yield started
    started.engine.close()


def asked(*texts: str) -> list[GenerateRequest]:
    return [GenerateRequest(t, f"p{i}", [{"role": "user", "content": t}], 0, i) for i, t in enumerate(texts)]


def outcome(started: VllmModel) -> tuple[list[Answer], list[Reading]]:
    answers = list(started.generate(asked("abc", "hello", "x" * 70), SAMPLING))
    readings = list(started.read([Tokens("r", [5, 6, 7], [1, 2])], Want(top_k=2)))
    started.engine.close()
    return answers, readings


def test_a_child_answers_as_an_engine_in_this_process(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (ours, read), (theirs, read_there) = (
        outcome(VllmModel(folder, _start(folder, "float32", made), made.vllm))
        for made in (settings(child=False), settings())
    )
    assert ours == theirs and [a.content for a in theirs if a.error is None] == ["c b a", "o l l e h"]
    assert sum(a.error is not None for a in theirs) == 1
    for name in ("target_logprob", "topk_ids", "topk_logprobs"):
        np.testing.assert_array_equal(getattr(read[0], name), getattr(read_there[0], name))
    # What vLLM prints is seen, and disturbs nothing.
    assert "vLLM says hello" in capfd.readouterr().err


def test_pictures_reach_the_child(folder: Path) -> None:
    child = engine.Child(sys.executable, {"model": "m"}, "auto", True)
    picture = np.zeros((4, 7, 3), np.uint8)
    child.add("a", [1, 2], [picture], {"max_tokens": 9})
    child.add("b", [3], (), {"max_tokens": 9})
    child.abort(["b"])
    [done] = child.step()
    assert (done.id, done.token_ids, done.prompt_tokens) == ("a", [2, 1, 7], 2)
    assert child.step() == []
    child.close()


def test_what_the_engine_refuses_and_its_death_are_sentences(model: VllmModel) -> None:
    with pytest.raises(Refused, match="vLLM does not take what is asked of teacher: temperature is too high"):
        list(model.generate(asked("abc"), Sampling(temperature=9, top_p=1.0, max_tokens=4)))
    with pytest.raises(TryAgain, match=r"has died \(out of memory\)"):
        list(model.generate(asked("\x0dbc"), SAMPLING))


def test_a_child_that_is_gone_is_worth_another_try(model: VllmModel) -> None:
    answers = model.generate(asked("abc", "\x0e", "more"), SAMPLING)
    assert next(answers).content == "c b a"
    with pytest.raises(TryAgain, match=r"has died \(its process ended with 9\).*run the stage again"):
        list(answers)


START = {
    "a Python that is not there": ({"python": "/nowhere/python"}, "teacher", "No such file or directory"),
    "a Python without vLLM": ({}, "teacher", "No module named 'vllm'"),
    "weights that are not there": ({}, "absent", "no such weights"),
    "another device": ({"device": "cuda"}, "teacher", "this vLLM is built for the CPU"),
}


@pytest.mark.parametrize("case", START)
def test_an_engine_that_does_not_start_is_one_sentence(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, name, why = START[case]
    if "without" in case:
        monkeypatch.setenv("PYTHONPATH", "")
    made = RunSettings(vllm=Vllm(python=given.get("python", sys.executable)), device=given.get("device", "auto"))
    with pytest.raises(Refused, match=rf"vLLM cannot start the model {name}: .*{why}.*run.vllm"):
        _start(folder.with_name(name), "float32", made)


VICTIM = """
import sys, time
from pipeline.model.engine import Child
child = Child(sys.executable, {"model": "m"}, "auto", True)
print(child._process.pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_its_parent_however_that_ends(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
