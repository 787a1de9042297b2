"""What holds for vLLM's engine alone: a context that is cut short, and an end that leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.core.settings import Vllm
from pipeline.errors import Refused, TryAgain
from pipeline.kinds.backend import Backend, Tokens, Want, open_model
from tests.laws.test_backends import SAMPLED, answered, asked, card, embedded, how

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
SHORT = 40
# Starts an engine, tells the ids of its processes, and answers for ever.
VICTIM = """
import sys
import psutil
from pathlib import Path
from dataclasses import replace
from pipeline.kinds.backend import open_model
from tests.laws.test_backends import SAMPLED, asked, how

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with open_model(folder, how(folder.parent)) as backend:
        said = False
        while True:
            for answer in backend.generate(asked(["hello"] * 64), replace(SAMPLED, max_tokens=64)):
                if not said:
                    print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
                    said = True
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = embedded(tmp_path_factory.mktemp("engine") / "asked")
    return card(made, backend="vllm.engine", model_id="asked", dtype="float32")


@pytest.fixture(scope="module")
def short(folder: Path) -> Iterator[Backend]:
    """An engine whose run gives it less context than the model has."""
    options = Vllm(max_model_len=SHORT, max_num_seqs=4, enforce_eager=True, enable_prefix_caching=False)
    with open_model(folder, how(folder.parent, vllm=options)) as backend:
        yield backend


def test_a_run_with_less_context_never_shortens_an_answer(short: Backend) -> None:
    """It would be kept as the model's own. The prompt takes 16 tokens, and the model 96."""
    [fits] = answered(short, asked(["3+4"]), replace(SAMPLED, max_tokens=24)).values()
    assert fits.error is None
    [exceeds] = answered(short, asked(["3+4"]), replace(SAMPLED, max_tokens=25)).values()
    assert exceeds.content is None
    assert exceeds.error == (
        "the prompt's 16 tokens and the 25 of its answer do not fit into run.vllm.max_model_len, 40; the model itself "
        "takes 96"
    )
    # More requests than the engine holds at once, with the ones that fail in between.
    many = answered(short, asked(["3+4", "9" * 50] * 10, k=2), replace(SAMPLED, max_tokens=24))
    assert {key for key, answer in many.items() if answer.error is None} == {
        f"{p}/{s}" for p in range(0, 20, 2) for s in (0, 1)
    }
    assert len(many) == 40


def test_a_text_of_the_whole_context_is_refused(short: Backend) -> None:
    [reading] = short.read([Tokens("fits", [5] * (SHORT - 1), [SHORT - 2])], Want(top_k=10_000))
    assert reading.topk_ids is not None and reading.topk_ids.shape == (1, 64)
    assert reading.tail_mass is not None and (reading.tail_mass >= 0).all()
    with pytest.raises(Refused, match=r"long has 40 tokens, and vLLM reads texts of at most 39.*max_model_len"):
        list(short.read([Tokens("long", [5] * SHORT, [SHORT - 1])]))


def test_a_dead_worker_is_a_reason_to_try_again(folder: Path) -> None:
    """What had been answered was handed over before."""
    before = set(psutil.Process().children())
    with open_model(folder, how(folder.parent)) as backend:
        answers = backend.generate(asked(["hello"] * 400), replace(SAMPLED, max_tokens=64))
        assert next(answers).error is None
        [worker] = [p for p in set(psutil.Process().children()) - before if "VLLM" in " ".join(p.cmdline())]
        worker.kill()
        with pytest.raises(TryAgain, match="has died"):
            list(answers)


def test_nothing_is_left_of_a_killed_run(folder: Path) -> None:
    """Not even a worker, which would keep a GPU's memory."""
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, folder], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as victim:
        assert victim.stdout is not None
        started = [psutil.Process(int(pid)) for pid in victim.stdout.readline().split()]
        victim.kill()
    assert started
    left = psutil.wait_procs(started, timeout=30)[1]
    for process in left:
        process.kill()
    assert left == []
