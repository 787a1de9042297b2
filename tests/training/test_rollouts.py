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

from pipeline.contracts import EXAMPLES  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.kinds.backend import Sampling  # noqa: E402
from pipeline.model.chat import Chat  # noqa: E402
from pipeline.model.load import load  # noqa: E402
from pipeline.tables import ids, parquet  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from pipeline.training.batches import POSITIONS  # noqa: E402
from pipeline.training.mixture import Mixture  # noqa: E402
from pipeline.training.rows import by_answer  # noqa: E402
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


TALKS = [f"sort {a}{b}" for a, b in ("31", "52", "97", "80")]


def talks(data: Path) -> list[dict[str, Any]]:  # noqa: F811
    """Examples of two answers each, both learnt; the second has a reference."""
    chat, rows = Chat(data / "models" / "base" / "tokenizer"), []
    for i, asked in enumerate(TALKS):
        before = [{"role": "user", "content": f"add {i} 1"}, {"role": "assistant", "content": f"{i + 1}#{i + 1}"}]
        rendered = chat.example([*before, {"role": "user", "content": asked}], f"{i}#{i}", answers="every")
        spans = [{"start": start, "end": end} for start, end in rendered.spans]
        rows.append({
            "example_id": ids.digest("talk", i), "prompt_id": ids.digest("talk of", i), "domain": "sort",
            "token_ids": rendered.token_ids, "spans": spans, "weight": 1.0, "template_hash": chat.template_hash,
            "tokenizer_hash": chat.tokenizer_hash, "response_ids": [ids.digest("said", i)],
            "verifier": "text.marked", "reference": str(i), "reward": 1.0,
        })  # fmt: skip
    shutil.rmtree(data / "examples" / "some")
    parquet.write(EXAMPLES, data / "examples" / "some", 1, [EXAMPLES.rows(rows)])
    return rows


ALWAYS: dict[str, dict[str, Any]] = {
    "rollout.on_policy": {"share": 1.0},
    "sampled.with_teacher": {},
    "sampled.replayed": {"begin": 1.0},
}


@pytest.mark.parametrize("use", ALWAYS)
def test_of_a_conversation_every_turn_is_answered_after_what_was_said_there(data: Path, use: str) -> None:  # noqa: F811
    given = {row["prompt_id"]: row for row in talks(data)}
    feed = {"use": use, "max_tokens": 4, **ALWAYS[use]}
    objectives = [{"use": "divergence.reverse"}]
    out = kd(data, "distill", "talking", "examples/some", feed=feed, objectives=objectives, batch_rows=4, epochs=1)
    drawn = pq.read_table(out / "rollouts" / "part-00000.parquet").to_pylist()
    assert len(drawn) == 2 * len(TALKS) == len({row["example_id"] for row in drawn})
    seen = set()
    for row in drawn:
        (span,), whole = row["spans"], given[row["prompt_id"]]
        (turn,) = [n for n, told in enumerate(whole["spans"]) if told["start"] == span["start"]]
        assert row["token_ids"][: span["start"]] == whole["token_ids"][: span["start"]]
        # An earlier answer is not judged by what the last one should be.
        assert (row["reward"] is None, row["reference"]) == ((True, None) if turn == 0 else (False, whole["reference"]))
        seen.add((row["prompt_id"], turn))
    assert len(seen) == len(drawn)


def test_where_rewards_are_read_the_last_answer_of_a_conversation_is_drawn(data: Path) -> None:  # noqa: F811
    given = {row["prompt_id"]: row["spans"][-1]["start"] for row in talks(data)}
    out = kd(
        data, "distill", "grouped", "examples/some", feed={"use": "sampled.groups", "answers": 2, "max_tokens": 4},
        objectives=[{"use": "policy.group_relative"}], batch_rows=4, epochs=1,
    )  # fmt: skip
    drawn = pq.read_table(out / "rollouts" / "part-00000.parquet").to_pylist()
    assert len(drawn) == 2 * len(TALKS)
    assert all(row["spans"][0]["start"] == given[row["prompt_id"]] and row["reward"] is not None for row in drawn)


def test_a_step_without_own_answers_is_that_of_the_rows_as_they_are(data: Path) -> None:  # noqa: F811
    talks(data)
    terms, feed = {"objectives": [{"use": "divergence.jsd"}], "batch_rows": 2}, {"use": "rollout.on_policy", "share": 0}
    off, plain = (kd(data, "distill", n, "examples/some", **terms, feed=f) for n, f in (("off", feed), ("plain", None)))
    assert weights(off) == weights(plain)


def test_rows_of_one_answer_are_what_they_were(data: Path) -> None:  # noqa: F811
    rows = Scan(EXAMPLES, (data / "examples" / "some",)).read()
    assert by_answer(rows, True) is rows is by_answer(rows, False)


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
