"""A student is a function of its rows, its recipe and its models: whole folders, through the stages."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from pipeline.contracts import EXAMPLES, ROLLOUTS, SIGNALS  # noqa: E402
from pipeline.core.driver import run_instance  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.core.stage import Instance, stage_named  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import Want, open_model  # noqa: E402
from pipeline.model.chat import Chat  # noqa: E402
from pipeline.model.folder import MOMENTS  # noqa: E402
from pipeline.model.load import load  # noqa: E402
from pipeline.stages.probe import apart, recorded  # noqa: E402
from pipeline.stages.read import tokens_of  # noqa: E402
from pipeline.tables import ids, manifest, parquet  # noqa: E402
from pipeline.tables.parquet import Scan  # noqa: E402
from pipeline.tables.tensors import arrays  # noqa: E402

ROOT = Path(__file__).parents[2]
ANSWER = [
    {
        "response_id": "r",
        "prompt_id": "p",
        "messages": [{"role": "user", "content": "add 012 034"}],
        "content": "46",
        "inputs": None,
    }
]
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped pair, and examples of it."""
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "data"
    for name in ("teacher", "base"):
        run(folder, "acquire", name, {"use": "local.embedded", "name": name}, {})
    chat, rows = Chat(folder / "models" / "base" / "tokenizer"), []
    for i in range(24):
        prompt, answer = f"add {i * 37 % 100:03d} {i * 11:03d}", f"{i}#{i * 3 + 100}"
        rendered = chat.example([{"role": "user", "content": prompt}], answer)
        rows.append({
            "example_id": ids.digest("example", i),
            "prompt_id": ids.digest("prompt", i // 2),
            "reward": float(i % 2),
            "domain": "add",
            "token_ids": rendered.token_ids,
            "spans": [{"start": s, "end": e} for s, e in rendered.spans],
            "weight": 1.0,
            "template_hash": chat.template_hash,
            "tokenizer_hash": chat.tokenizer_hash,
            "response_ids": [ids.digest("response", i)],
            "verifier": "text.marked",
            "reference": str(i * 3 + 100),
        })  # fmt: skip
    parquet.write(EXAMPLES, folder / "examples" / "some", 2, [EXAMPLES.rows(rows)])
    for gate in ("examples/some", "signals/some/teacher"):
        (folder / "gates" / gate).mkdir(parents=True)
    return folder


def run(
    data: Path,
    stage: str,
    name: str,
    given: dict,
    inputs: dict[str, tuple[str, ...]],
    code: str = "code",
    **how: Any,
) -> Path:
    params = stage_named(stage).params.model_validate(given)
    instance = Instance(stage, name, params, inputs, params.output(name), code)
    run_instance(instance, RunSettings(batch_rows=16, **how), data, data.parent)
    return data / instance.output


def kd(
    data: Path,
    stage: str,
    name: str,
    of: str,
    code: str = "code",
    steps: int = 200,
    reporters: tuple[str, ...] = (),
    ranks: int = 1,
    shard: bool = False,
    **changed: object,
) -> Path:
    given = {
        "of": of, "student": "base", "epochs": 3, "batch_rows": 8, "warmup_steps": 0, "learning_rate": 1e-3, "seed": 17,
        "objectives": [{"use": "divergence.forward"}], **changed,
    }  # fmt: skip
    inputs = {"rows": (of,), "gates": (f"gates/{of}",), "student": ("models/base",)}
    if stage == "distill":
        inputs["teacher"] = ("models/teacher",)
        given["teacher"] = "teacher"
    how = {"checkpoint_steps": steps, "reporters": reporters, "ranks": ranks, "shard": shard}
    return run(data, stage, name, given, inputs, code, **how)


def test_stored_signals_of_the_whole_vocabulary_are_the_live_teacher(data: Path) -> None:
    probed = {"examples": ("examples/some",), "model": ("models/teacher",)}
    run(data, "probe", "teacher", {"of": "some", "model": "teacher", "top_k": 64}, probed)
    stored = kd(data, "train", "stored", "signals/some/teacher")
    live = kd(data, "distill", "live", "examples/some")
    for folder in (stored, live):
        assert {"model.safetensors", "config.json", "tokenizer", "model.json", "training.jsonl"} <= {
            p.name for p in folder.iterdir()
        }
        assert not list(folder.glob("*.bin"))
    one, two, start = (load(folder, "float32") for folder in (stored, live, data / "models" / "base"))
    tokens = torch.tensor([Scan(EXAMPLES, (data / "examples" / "some",)).pylist()[0]["token_ids"]])
    with torch.no_grad():
        p, q, before = (model(tokens).logits.softmax(-1) for model in (one, two, start))
    assert (p - before).abs().max() > 1e-2
    assert (p - q).abs().max() < 1e-4
    losses = [
        [json.loads(line)["loss"] for line in (f / "training.jsonl").read_text().splitlines()] for f in (stored, live)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("acquired", ["float32", "bfloat16"])
@pytest.mark.parametrize("chosen", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [None, {"rank": 2, "alpha": 4.0}])
def test_a_student_is_kept_in_the_dtype_that_it_came_in_or_that_is_chosen(
    data: Path, acquired: str, chosen: str | None, adapter: dict | None
) -> None:
    """Its weights, its configuration and its card say the same."""
    shutil.rmtree(data / "models" / "base")
    run(data, "acquire", "base", {"use": "local.folder", "path": "data/embedded/base", "dtype": acquired}, {})
    changed = {"dtype": chosen, "adapter": adapter, "epochs": 0.5, "batch_rows": 12}
    objectives = [{"use": "supervised.cross_entropy"}]
    out = kd(data, "train", "kept", "examples/some", objectives=objectives, **changed)
    wanted = chosen or acquired
    assert json.loads((out / "model.json").read_text("utf-8"))["dtype"] == wanted
    assert json.loads((out / "config.json").read_text("utf-8"))["dtype"] == wanted
    with safe_open(out / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {f"torch.{wanted}"}  # noqa: SIM118


def test_moments_are_kept_where_they_are_asked_for_and_turn_a_gradient(data: Path) -> None:
    """After one step both are of its gradient. The weights are those of a training that keeps none."""
    one_step = {"epochs": 1, "batch_rows": 24, "objectives": [{"use": "supervised.cross_entropy"}]}
    kept = kd(data, "train", "kept", "examples/some", keep_moments=True, **one_step)
    plain = kd(data, "train", "plain", "examples/some", **one_step)
    assert json.loads((kept / "model.json").read_text()) == json.loads((plain / "model.json").read_text())
    assert not (plain / MOMENTS).exists()
    held = load_file(kept / MOMENTS)
    names = {name for name, _ in load(kept, "float32").named_parameters()}
    assert held.keys() == {"betas"} | {f"{order}.{name}" for name in names for order in ("first", "second")}
    beta1, beta2 = held["betas"].tolist()
    for name in names:
        gradient = held[f"first.{name}"] / (1 - beta1)
        torch.testing.assert_close(held[f"second.{name}"] / (1 - beta2), gradient**2, rtol=1e-4, atol=1e-12)

    text = tokens_of(data / "models/base/tokenizer", ANSWER)
    with open_model(kept, How(RunSettings(threads=1, device="cpu"), data.parent, "read@grad")) as backend:
        [turned] = backend.read(text, Want(gradient=256, adam=True))
        [straight] = backend.read(text, Want(gradient=256))
    assert turned.gradient is not None and straight.gradient is not None
    assert np.isfinite(turned.gradient).all()
    cosine = turned.gradient @ straight.gradient / np.linalg.norm(turned.gradient) / np.linalg.norm(straight.gradient)
    assert 0 < cosine < 0.9
    with (
        open_model(plain, How(RunSettings(threads=1, device="cpu"), data.parent, "read@grad")) as backend,
        pytest.raises(Refused, match="no moments of AdamW: train it with `keep_moments: true`"),
    ):
        list(backend.read(text, Want(gradient=256, adam=True)))


@pytest.mark.parametrize("changed", [{"optimizer": "muon"}, {"adapter": {"rank": 2, "alpha": 4.0}}])
def test_moments_are_of_adamw_on_all_weights(data: Path, changed: dict) -> None:
    with pytest.raises(ValueError, match="keep_moments is of AdamW on all weights"):
        kd(data, "train", "kept", "examples/some", keep_moments=True, **changed)


def test_a_checkpoint_is_gone_on_from_only_by_the_code_that_made_it(data: Path) -> None:
    """Or else an edited objective would answer with the weights of the old one."""
    first = kd(data, "distill", "live", "examples/some", epochs=1)
    (held,) = (data / ".checkpoints" / "live").iterdir()
    kd(data, "distill", "live", "examples/some", epochs=1)
    assert list((data / ".checkpoints" / "live").iterdir()) == [held]
    kd(data, "distill", "live", "examples/some", code="edited", epochs=1)
    (now,) = (data / ".checkpoints" / "live").iterdir()
    assert now != held and first.exists()


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "training.jsonl").read_text("utf-8").splitlines()]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def probed(data: Path, **given: Any) -> Path:
    inputs = {"examples": ("examples/some",), "model": ("models/teacher",)}
    return run(data, "probe", "teacher", {"of": "some", "model": "teacher", "top_k": 16, **given}, inputs)


def test_rollouts_are_drawn_from_the_student_and_kept(data: Path) -> None:
    """GKD's mixture: in half of the steps the student's own answers, judged by the rows' own verifiers."""
    feed = {"use": "rollout.on_policy", "share": 0.5, "max_tokens": 12}
    objectives = [{"use": "divergence.jsd", "beta": 0.5}]
    mixed = kd(data, "distill", "mixed", "examples/some", feed=feed, objectives=objectives)
    drawn = pq.read_table(mixed / "rollouts" / "part-00000.parquet")
    assert drawn.schema.equals(ROLLOUTS.schema)
    steps = set(drawn["step"].to_pylist())
    assert steps == {n + 1 for n in range(9) if ids.draw(17, "rollout", n) < 0.5} and 0 < len(steps) < 9
    chat = Chat(data / "models" / "base" / "tokenizer")
    given = {row["prompt_id"]: row for row in Scan(EXAMPLES, (data / "examples" / "some",)).pylist()}
    for row in drawn.to_pylist():
        (span,) = row["spans"]
        asked = row["token_ids"][: span["start"]]
        assert chat.decode(asked)[:3] == "add" and span["end"] == len(row["token_ids"]) <= len(asked) + 12
        assert row["reference"] is not None and row["reward"] in (0.0, 1.0) and row["prompt_id"] in given
    again = kd(data, "distill", "again", "examples/some", feed=feed, objectives=objectives)
    assert weights(again) == weights(mixed)
    off = kd(data, "distill", "off", "examples/some", feed={**feed, "share": 0.0}, objectives=objectives)
    plain = kd(data, "distill", "plain", "examples/some", objectives=objectives)
    assert weights(off) == weights(plain) != weights(mixed)


def test_two_parts_teach_each_other_in_turns(data: Path) -> None:
    """Mutual learning: a term on another part than the student. What is not in a turn does not move in it."""
    turns = [
        {"trains": ["peer"], "objectives": [
            {"use": "supervised.cross_entropy", "of": "peer"},
            {"use": "divergence.forward", "of": "peer", "against": "student"}]},
        {"objectives": [{"use": "supervised.cross_entropy"}, {"use": "divergence.forward", "against": "peer"}]},
    ]  # fmt: skip
    given = {"objectives": [], "turns": turns, "beside": {"peer": "student"}}
    folder = kd(data, "train", "mutual", "examples/some", **given)
    start, end = (load(f, "float32").state_dict() for f in (data / "models" / "base", folder))
    assert any(not torch.equal(start[name], end[name]) for name in start)
    (place,) = (data / ".checkpoints" / "mutual").iterdir()
    from safetensors.torch import load_file

    parts = load_file(place / "checkpoint-9" / "parts.safetensors")
    assert {name.split(".")[0] for name in parts} == {"student", "peer"}
    # The first turn trains the peer alone: after one step the student is what it was.
    once = kd(data, "train", "once", "examples/some", **given, epochs=0.34)
    assert all(
        torch.equal(a, b) for a, b in zip(start.values(), load(once, "float32").state_dict().values(), strict=True)
    )


def test_states_are_learnt_through_a_projection_live_and_stored(data: Path) -> None:
    """A stored tap is what the live teacher computes; the projection is trained, and no part of the student."""
    signals = probed(data, taps=["last", "transformer.h.0"])
    cells = Scan(SIGNALS, (signals,)).read(["features", "spans"]).to_pylist()
    for row in cells:
        taps = arrays(row["features"])
        places = sum(s["end"] - s["start"] for s in row["spans"])
        assert {name: value.shape for name, value in taps.items()} == {
            "last": (places, 128), "transformer.h.0": (places, 128),
        }  # fmt: skip
    objectives = [{"use": "supervised.cross_entropy"}, {"use": "feature.hidden", "weight": 0.5}]
    stored = kd(data, "train", "stored", "signals/some/teacher", objectives=objectives)
    live = kd(data, "distill", "live", "examples/some", objectives=objectives)
    assert losses(stored) == pytest.approx(losses(live), rel=1e-4)
    base = load(data / "models" / "base", "float32")
    assert load(stored, "float32").state_dict().keys() == base.state_dict().keys()
    plain = kd(data, "train", "plain", "signals/some/teacher", objectives=objectives[:1])
    assert weights(plain) != weights(stored)


def test_preference_against_the_student_as_it_began(data: Path) -> None:
    """A pair is never cut, the margin grows, and the loss begins at log 2."""
    objectives = [{"use": "preference.dpo", "against": "start", "beta": 0.5}]
    folder = kd(data, "train", "dpo", "examples/some", objectives=objectives, epochs=12, batch_rows=6)
    curve = losses(folder)
    assert len(curve) == 12 * 4 and curve[0] == pytest.approx(np.log(2), abs=1e-4)
    assert np.mean(curve[-4:]) < 0.5 * np.log(2)


def test_a_second_model_a_first_look_and_a_controller_train_a_student(data: Path) -> None:
    """The reference is the student as it began; controller and weak head are parts, however often all is kept."""
    objectives = [
        {"use": "tokens.adaspec", "reference": "start"},
        {"use": "schedule.tgeo", "weight": 0.5},
        {"use": "schedule.uskd", "weight": 0.1, "k": 8},
        {"use": "divergence.pair", "weight": 0.1},
    ]
    whole = kd(data, "distill", "whole", "examples/some", objectives=objectives)
    assert all(np.isfinite(losses(whole))) and len(losses(whole)) == 9
    (place,) = (data / ".checkpoints" / "whole").iterdir()
    from safetensors.torch import load_file

    kept = load_file(place / "checkpoint-9" / "parts.safetensors")
    assert {name.split(".")[0] for name in kept} == {"student", "own:1", "own:2"}
    again = kd(data, "distill", "again", "examples/some", objectives=objectives, steps=4)
    assert weights(again) == weights(whole)


REMEMBERS = {
    "objectives": [
        {"use": "schedule.taid", "against": "teacher", "rate": 0.2},
        {"use": "schedule.ps_kd", "against": "shadow"},
        {"use": "feature.hidden", "against": "teacher"},
        {"use": "schedule.tgeo", "against": "teacher", "weight": 0.1},
    ],
    "shadow": {"every": "epoch", "decay": 0},
    "feed": {"use": "rollout.on_policy", "share": 0.3, "max_tokens": 6},
}  # fmt: skip


def _killed_at(data: Path, step: int) -> None:
    """Train, and die at a step as a process dies that is killed."""
    real = How.progress

    def progress(self: How, done: int, total: int, note: object = "") -> None:
        real(self, done, total, note)
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    How.progress = progress  # type: ignore[method-assign]
    torch.set_num_threads(1)
    kd(data, "distill", "student", "examples/some", steps=4, **REMEMBERS)


@pytest.mark.parametrize("step", [5, 8])
def test_a_killed_training_with_memory_goes_on_to_the_same_bytes(data: Path, step: int) -> None:
    """TAID's state, PS-KD's student of the last epoch, a trained projection, two optimizers, and rollouts."""
    whole = kd(data, "distill", "whole", "examples/some", steps=4, **REMEMBERS)
    process = FORK.Process(target=_killed_at, args=(data, step))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL and not (data / "models" / "student").exists()
    (place,) = (data / ".checkpoints" / "student").iterdir()
    assert (place / "checkpoint-4" / "complete").exists()
    shutil.rmtree(data / ".runs" / "locks", ignore_errors=True)
    resumed = kd(data, "distill", "student", "examples/some", steps=4, **REMEMBERS)
    assert weights(resumed) == weights(whole) and losses(resumed) == losses(whole)
    kept = [pq.read_table(folder / "rollouts" / "part-00000.parquet") for folder in (resumed, whole)]
    assert kept[0].equals(kept[1]) and len(kept[0])


def test_rows_that_cannot_be_trained_on_stop_the_stage(data: Path) -> None:
    folder = probed(data)
    table = pq.read_table(folder / "part-00000.parquet")
    tails = table["tail_mass"].to_pylist()
    tails[0][0] = float("nan")
    broken = table.set_column(
        table.schema.get_field_index("tail_mass"), "tail_mass", pa.array(tails, pa.list_(pa.float32()))
    )
    pq.write_table(broken, folder / "part-00000.parquet")
    with pytest.raises(Refused, match=r"part-00000.parquet: example .* stores a tail mass that is NaN"):
        kd(data, "train", "kd", "signals/some/teacher")


SIGNALLED = "signals/some/teacher"


def _told(**changed: Any) -> Callable[[Path], object]:
    """Change what the manifest says."""

    def change(data: Path) -> None:
        file = data / SIGNALLED / manifest.FILE
        file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changed}), "utf-8")

    return change


def _rewritten(**changed: Any) -> Callable[[Path], object]:
    """Change columns of the examples; a function is given the row."""

    def change(data: Path) -> None:
        folder = data / "examples/some"
        rows = Scan(EXAMPLES, (folder,)).pylist()
        told = [
            {**r, **{name: value(r) if callable(value) else value for name, value in changed.items()}} for r in rows
        ]
        parquet.write(EXAMPLES, folder, 2, [EXAMPLES.rows(told)])

    return change


def _cut_short(data: Path) -> None:
    pq.write_table(SIGNALS.schema.empty_table(), data / SIGNALLED / "part-00001.parquet")


NEW = "e" * 32
UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda data: (data / SIGNALLED / manifest.FILE).unlink(), "has no manifest.json"),
    "a part is missing": (_cut_short, r"rows: 24, and there are \d+; a part may be missing"),
    "other examples": (_told(examples=NEW), "examples eeeeeeee, and other .* `dvc repro -sf probe@teacher`"),
    "another tokenizer": (_told(tokenizer=NEW), "tokenizer eeeeeeee, and the student"),
    "another template": (_told(template=NEW), "template eeeeeeee, and the student"),
    "not read again": (_told(again=None), "a second time"),
    "cut otherwise": (_rewritten(tokenizer_hash=NEW), r"cut with another tokenizer \(eeeeeeee.*`student: base`"),
    "rendered otherwise": (_rewritten(template_hash=NEW), r"another chat template \(eeeeeeee.*`student: base`"),
    "all is trained on": (
        _rewritten(spans=lambda row: [{"start": 1, "end": len(row["token_ids"])}]), "on every token of every row",
    ),
    "longer than the context": (
        _rewritten(token_ids=lambda row: row["token_ids"] * 9), r"example \w+ has \d{3} tokens, and base reads 96",
    ),
    "nothing is trained on": (_rewritten(spans=[]), "trains on nothing"),
}  # fmt: skip


@pytest.fixture(scope="module")
def signalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signals of the shipped teacher, once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = data.__wrapped__(tmp_path_factory.mktemp("signalled"), patch)  # type: ignore[attr-defined]
        probed(folder)
    return folder


@pytest.mark.parametrize("what", UNFIT)
def test_rows_that_are_not_what_they_are_said_to_be_stop_the_training(
    what: str, signalled: Path, tmp_path: Path
) -> None:
    spoil, says = UNFIT[what]
    shutil.copytree(signalled, tmp_path / "data")
    spoil(tmp_path / "data")
    with pytest.raises(Refused, match=says):
        kd(tmp_path / "data", "train", "kd", "examples/some" if spoil.__qualname__.startswith("_rewr") else SIGNALLED)


def test_a_manifest_says_whose_signals_these_are_and_that_a_second_reading_agrees(signalled: Path) -> None:
    said = manifest.read(signalled / "signals/some/teacher")
    chat, card = (
        Chat(signalled / "models/base/tokenizer"),
        json.loads((signalled / "models/teacher/model.json").read_text()),
    )
    assert said is not None and said.again is not None
    assert (said.teacher, said.dtype) == (card["model_id"], "float32")
    assert (said.tokenizer, said.template) == (chat.tokenizer_hash, chat.template_hash)
    assert (said.rows, said.top_k, said.again.rows, said.again.dtype) == (24, 16, 24, "float64")
    assert 0 < said.again.distance < said.again.furthest < 1e-4 and said.again.target < 1e-3


@pytest.mark.parametrize("spoilt", ["another teacher", "a place later"])
def test_signals_of_another_model_or_place_are_far_from_a_second_reading(signalled: Path, spoilt: str) -> None:
    rows = Scan(SIGNALS, (signalled / "signals/some/teacher",)).read().slice(0, 4)
    [(_, one), *_] = recorded(rows)
    same, _ = apart(one, one)
    assert same.max() < 1e-6
    later = replace(one, topk_ids=np.roll(one.topk_ids, 1, 0), topk_logprobs=np.roll(one.topk_logprobs, 1, 0))
    other = replace(one, topk_ids=(one.topk_ids + 1) % 64)
    far, _ = apart(one, later if spoilt == "a place later" else other)
    assert far.mean() > 0.1


def test_a_training_waits_for_the_gate_of_its_signals(signalled: Path, tmp_path: Path) -> None:
    shutil.copytree(signalled, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/gates/signals/some/teacher")
    with pytest.raises(Refused, match="gates/signals/some/teacher is missing"):
        kd(tmp_path / "data", "train", "kd", "signals/some/teacher")


def test_signals_that_are_stored_compactly_teach_the_same(signalled: Path, tmp_path: Path) -> None:
    shutil.copytree(signalled, tmp_path / "data")
    exact = kd(tmp_path / "data", "train", "exact", SIGNALLED)
    folder = probed(tmp_path / "data", store="compact")
    rows, said = Scan(SIGNALS, (folder,)).read(), manifest.read(folder)
    assert rows["topk_ids"].null_count == len(rows) and rows["topk_gaps"].null_count == 0
    assert said is not None and said.store == "compact" and said.again is not None and said.again.distance < 0.01
    compact = kd(tmp_path / "data", "train", "compact", SIGNALLED)
    # Forty places in the first step; what follows goes its own way.
    assert losses(compact)[0] == pytest.approx(losses(exact)[0], rel=1e-3)
    assert losses(compact) == pytest.approx(losses(exact), rel=2e-2) and weights(compact) != weights(exact)
