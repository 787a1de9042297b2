"""Students that learn from sets of answers, most of them their own: through the stages, and killed and gone on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")

from transformers import DynamicCache  # noqa: E402

from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.kinds.backend import Sampling  # noqa: E402
from pipeline.model.load import load  # noqa: E402
from pipeline.training.batches import POSITIONS  # noqa: E402
from pipeline.training.mixture import Mixture  # noqa: E402
from tests.training.test_fit import FORK, data, kd, losses, one_thread, weights  # noqa: E402, F401

MIXED = {"use": "policy.minillm", "mixed": 0.2}
# Each with objectives as in its paper.
FEEDS: dict[str, dict[str, Any]] = {
    "with_teacher": {"feed": {"max_tokens": 6}, "objectives": [MIXED, {"use": "divergence.reverse"}]},
    "replayed": {
        "feed": {"begin": 0.4, "every": 2, "tolerance": 0.0, "capacity": 12, "max_tokens": 6},
        "objectives": [{"use": "divergence.skew_forward"}],
    },
    "groups": {
        "feed": {"answers": 4, "max_tokens": 6},
        "objectives": [
            {"use": "policy.group_relative"},
            {"use": "divergence.reverse", "against": "start", "weight": 0.1},
            {"use": "listwise.adpo", "against": "student"},
        ],
    },
}


def trained(data: Path, name: str, which: str) -> Path:  # noqa: F811
    given = FEEDS[which]
    feed = {"use": f"sampled.{which}", **given["feed"]}
    return kd(data, "distill", name, "examples/some", steps=2, feed=feed, objectives=given["objectives"], epochs=2)


def _killed(data: Path, which: str) -> None:  # noqa: F811
    real = How.progress

    def progress(self: How, done: int, total: int, note: object = "") -> None:
        real(self, done, total, note)
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    How.progress = progress  # type: ignore[method-assign]
    torch.set_num_threads(1)
    trained(data, "student", which)


@pytest.mark.parametrize("which", FEEDS)
def test_a_killed_training_on_own_answers_goes_on_to_the_same_bytes(data: Path, which: str) -> None:  # noqa: F811
    whole = trained(data, "whole", which)
    process = FORK.Process(target=_killed, args=(data, which))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL and not (data / "models" / "student").exists()
    (place,) = (data / ".checkpoints" / "student").iterdir()
    assert (place / "checkpoint-2" / "complete").exists()
    shutil.rmtree(data / ".runs" / "locks", ignore_errors=True)
    resumed = trained(data, "student", which)
    assert weights(resumed) == weights(whole) and losses(resumed) == losses(whole)
    kept = [pq.read_table(folder / "rollouts" / "part-00000.parquet") for folder in (resumed, whole)]
    assert kept[0].equals(kept[1]) and len(kept[0])
    assert weights(whole) != (data / "models" / "base" / "model.safetensors").read_bytes()
    if which == "groups":
        # All answers of a set are drawn for one prompt, and judged by its verifier.
        assert set(pc.value_counts(kept[0]["prompt_id"]).field("counts").to_pylist()) <= {4, 8, 12, 16}


def test_a_mixture_says_what_the_two_say_in_the_shares_given(data: Path) -> None:  # noqa: F811
    """With a cache as without one, and at either end the one model alone."""
    student, teacher = (load(data / "models" / name, "float32") for name in ("base", "teacher"))
    tokens = torch.tensor([[1, 9, 12, 30, 7, 11]])
    with torch.no_grad():
        q, p = (net(tokens).logits[:, -1].softmax(-1) for net in (student, teacher))
        mixture = Mixture(student, teacher, 0.3)
        cache: Any = DynamicCache(config=student.config)
        mixture(tokens[:, :4], past_key_values=cache)
        for at in (4, 5):
            said = mixture(tokens[:, at : at + 1], past_key_values=cache).logits[:, -1]
    torch.testing.assert_close(said.exp(), 0.7 * q + 0.3 * p, rtol=1e-4, atol=1e-6)


def test_a_teacher_that_takes_part_changes_what_is_drawn(data: Path) -> None:  # noqa: F811
    from pipeline.training.fit import _Sampler

    student, teacher = (load(data / "models" / name, "float32") for name in ("base", "teacher"))
    how = How(RunSettings(threads=1, device="cpu", batch_rows=16), data.parent, "distill@x")
    sampler = _Sampler(student, teacher, data / "models" / "base", how)
    prompt, sampling = sampler.chat.prompt([{"role": "user", "content": "sort 3 1 2"}]), Sampling(1.0, 1.0, 8)
    answers = [sampler._sample([prompt] * 8, range(8), sampling, share) for share in (0.0, 1e-9, 0.9)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("name", ["kto", "ipo"])
def test_the_teacher_is_the_reference_and_a_step_is_the_same_however_it_is_cut(
    name: str,
    data: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """KTO holds every set against the whole step; IPO looks at one set, which is never cut."""
    given = {"objectives": [{"use": f"pairs.{name}"}], "batch_rows": 24, "epochs": 3}
    whole = kd(data, "distill", "whole", "examples/some", **given)
    monkeypatch.setitem(POSITIONS, "cpu", 64)
    cut = kd(data, "distill", "cut", "examples/some", **given)
    assert losses(cut) == pytest.approx(losses(whole), rel=1e-3) and losses(whole)[-1] < losses(whole)[0]
