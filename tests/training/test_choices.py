"""What a recipe may choose about the loop: adapters, memory, what is kept."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.core.run import How  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.model.load import load  # noqa: E402
from pipeline.training.adapter import merged, with_adapter  # noqa: E402
from pipeline.training.recipe import Adapter, HeldOut  # noqa: E402
from pipeline.training.watch import Watch  # noqa: E402
from tests.training.test_fit import data, kd, losses, weights  # noqa: E402, F401
from tests.training.test_loop import distance, fit, kind_of, recipe, student  # noqa: E402

PLAIN = {"objectives": [{"use": "supervised.cross_entropy"}], "epochs": 1}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_dora_learns_lengths_and_is_merged_too(tmp_path: Path) -> None:
    given = {"rank": 2, "alpha": 4.0}
    adapter = recipe(adapter={**given, "dora": True}).adapter
    assert adapter is not None
    lengths = [
        n for n, p in with_adapter(student(), adapter).named_parameters() if "magnitude" in n and p.requires_grad
    ]
    assert len(lengths) == 2 * 4
    one, _ = fit(tmp_path / "lora", recipe(adapter=given, epochs=1))
    two, _ = fit(tmp_path / "dora", recipe(adapter={**given, "dora": True}, epochs=1))
    assert one.state_dict().keys() == two.state_dict().keys() == student().state_dict().keys()
    assert distance(one, two) > 0 and distance(two, student()) > 0
    with pytest.raises(Refused, match=r"adapter\.dora: the experts of a mixture .* leave `dora` out"):
        with_adapter(kind_of("Mixtral"), adapter)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: `.[quantised]`")
@pytest.mark.filterwarnings("default")
def test_an_adapter_beside_four_bits_learns_as_beside_the_same_values(data: Path) -> None:  # noqa: F811
    """Also after a look in evaluation mode; and what is saved is the model that learnt."""
    base, four = data / "models/base", Adapter(rank=2, alpha=4.0, base="nf4")
    net, tokens = with_adapter(load(base, "nf4"), four), torch.arange(3, 27).reshape(2, 12)
    # Adapters begin as nothing.
    values = merged(net, lambda: load(base, "float32"))
    apart = [n for n, p in load(base, "float32").named_parameters() if not torch.equal(p, values.get_parameter(n))]
    assert "transformer.h.1.mlp.c_fc.weight" in apart
    plain = with_adapter(copy.deepcopy(values), Adapter(rank=2, alpha=4.0))
    theirs, grads = dict(plain.named_parameters()), {}
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) / 10)
                theirs[name].copy_(weight)
        said = net.eval()(tokens).logits.softmax(-1)
    for each in (net, plain):
        each.train()(input_ids=tokens, labels=tokens).loss.backward()
        grads[each] = torch.cat([p.grad.flatten() for n, p in each.named_parameters() if "lora_" in n])
    assert torch.nn.functional.cosine_similarity(grads[net], grads[plain], dim=0) > 0.99
    assert 0.95 < grads[net].norm() / grads[plain].norm() < 1.05
    with torch.no_grad():
        saved = merged(net, lambda: load(base, "float32")).eval()(tokens).logits.softmax(-1)
        before = values.eval()(tokens).logits.softmax(-1)
    assert (saved - said).abs().sum(-1).mean() < 0.1 * (before - said).abs().sum(-1).mean()
    folder = kd(data, "train", "four", "examples/some", **PLAIN, adapter={"rank": 2, "alpha": 4.0, "base": "nf4"})
    assert weights(folder) != weights(base) and load(folder, "float32").dtype == torch.float32


def test_what_has_no_four_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="leave `dora` out"):
        Adapter(rank=2, alpha=4.0, base="nf4", dora=True)
    with pytest.raises(Refused, match=r"adapter\.base: the experts of a mixture"):
        with_adapter(kind_of("Mixtral"), Adapter(rank=2, alpha=4.0, base="nf4"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_what_is_trainable_learns(data: Path, optimizer: str) -> None:  # noqa: F811
    """By module or by pattern; the card tells how much that is, and nothing else moves by a bit."""
    given = {"optimizer": optimizer, "trainable": ["transformer.h.0", "*.h.1.mlp.*.bias"], "weight_decay": 0.1}
    folder = kd(data, "train", "some", "examples/some", **PLAIN | given)
    start, end = (load(f, "float32").state_dict() for f in (data / "models/base", folder))
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    wanted = {n for n in start if n.startswith("transformer.h.0.") or (".h.1.mlp." in n and n.endswith(".bias"))}
    assert moved == wanted and wanted
    count, every = (sum(start[n].numel() for n in names) for names in (wanted, start.keys() - {"lm_head.weight"}))
    text = (folder / "README.md").read_text("utf-8")
    assert f"- trained: {count:,} of {every:,} weights, those of `transformer.h.0`, `*.h.1.mlp.*.bias`\n" in text


def test_a_tied_weight_learns_by_either_name(data: Path) -> None:  # noqa: F811
    one, two = (
        kd(data, "train", name, "examples/some", **PLAIN, trainable=[pattern])
        for name, pattern in (("head", "lm_head"), ("embedding", "transformer.wte"))
    )
    assert weights(one) == weights(two) != weights(data / "models/base")


def test_a_pattern_that_is_like_no_module_is_refused(data: Path) -> None:  # noqa: F811
    says = r"trainable: 'transformer.h.9' is like no module of base; did you mean transformer\.h\.\d\? It has "
    with pytest.raises(Refused, match=says):
        kd(data, "train", "none", "examples/some", **PLAIN, trainable=["lm_head", "transformer.h.9"])
    with pytest.raises(ValueError, match="say `adapter` or `trainable`, not both"):
        recipe(adapter={"rank": 2, "alpha": 4.0}, trainable=["lm_head"])


def test_gradient_checkpointing_learns_the_same(data: Path) -> None:  # noqa: F811
    plain = kd(data, "train", "plain", "examples/some", **PLAIN)
    less = kd(data, "train", "less", "examples/some", **PLAIN, gradient_checkpointing=True)
    assert losses(less) == pytest.approx(losses(plain), rel=1e-6)


def test_a_card_tells_whose_answers_were_learnt_and_on_which_terms(data: Path) -> None:  # noqa: F811
    plan = {
        "acquire/teacher": {"terms": "CC-BY 4.0"}, "acquire/base": {}, "acquire/other": {"terms": "secret"},
        "generate/teacher": {"model": "teacher"}, "generate/other": {"model": "other"},
        "select/few": {"entries": ["teacher"]}, "pack/some": {"of": "responses/train", "by": "few"},
    }  # fmt: skip
    outputs = {"acquire": "models/{}", "generate": "responses/train/{}", "select": "selections/responses/train/{}",
               "pack": "examples/{}"}  # fmt: skip
    for label, params in plan.items():
        stage, name = label.split("/")
        file = data / "plan" / f"{label}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        told = {"stage": stage, "instance": name, "output": outputs[stage].format(name), "params": params}
        file.write_text(json.dumps(told), "utf-8")
    text = (kd(data, "train", "told", "examples/some", **PLAIN) / "README.md").read_text("utf-8")
    assert text.startswith("# told\n") and "- `teacher`: CC-BY 4.0" in text and "secret" not in text
    assert "1 x `supervised.cross_entropy`" in text and "trained tokens (add 100%)" in text
    live = (kd(data, "distill", "live", "examples/some", epochs=1) / "README.md").read_text("utf-8")
    assert live.count("- `teacher`: CC-BY 4.0") == 1


def curve_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text("utf-8").splitlines()]


# Far too fast, so that what is held out is lost again.
WILD = {"learning_rate": 0.01, "epochs": 16, "batch_rows": 6, "decay_share": 0.0}
HELD = {"share": 0.25, "every": 2}


def test_the_best_student_on_rows_that_are_held_out_is_kept_and_the_training_ends(data: Path) -> None:  # noqa: F811
    last = kd(data, "train", "last", "examples/some", **PLAIN | WILD, held_out={**HELD, "keep": "last"})
    best = kd(data, "train", "best", "examples/some", **PLAIN | WILD, held_out=HELD)
    looks = {point["step"]: point["held_out"] for point in curve_of(best) if "held_out" in point}
    assert set(looks) == {*range(2, len(curve_of(best)), 2), len(curve_of(best))}
    first = min(looks, key=lambda step: looks[step])
    assert first < len(curve_of(best)) and curve_of(last) == curve_of(best) and weights(last) != weights(best)
    until = {**PLAIN, **WILD, "epochs": WILD["epochs"] * first / len(curve_of(best))}
    assert weights(kd(data, "train", "until", "examples/some", **until, held_out=HELD)) == weights(best)
    soon = kd(data, "train", "soon", "examples/some", **PLAIN | WILD, held_out={**HELD, "patience": 1})
    assert len(curve_of(soon)) < len(curve_of(best)) and curve_of(soon) == curve_of(best)[: len(curve_of(soon))]


def test_rows_that_are_held_out_are_whole_prompts_and_not_trained_on(data: Path) -> None:  # noqa: F811
    watch = Watch(HeldOut(share=0.3), np.repeat(np.array([f"p{i}" for i in range(50)], "S4"), 2), 17)
    assert sorted([*watch.held, *watch.trained]) == list(range(100))
    assert not {n // 2 for n in watch.held} & {n // 2 for n in watch.trained}
    one = kd(data, "train", "one", "examples/some", **PLAIN, held_out=HELD)
    assert sum(point["places"] for point in curve_of(one)) < sum(
        point["places"] for point in curve_of(kd(data, "train", "all", "examples/some", **PLAIN))
    )
    with pytest.raises(Refused, match=r"held_out\.share: of 3 rows 0 are held out"):
        Watch(HeldOut(share=0.001), np.array([b"a", b"b", b"c"]), 17)


def test_answers_to_rows_that_are_held_out_are_judged(data: Path) -> None:  # noqa: F811
    held = {**HELD, "answers": 4, "max_tokens": 8}
    told = curve_of(kd(data, "train", "asked", "examples/some", **PLAIN, held_out=held))
    assert all(0 <= point["right"] <= 1 for point in told if "held_out" in point) and any("right" in p for p in told)


def test_an_average_of_the_student_is_kept_in_its_place(data: Path) -> None:  # noqa: F811
    plain = kd(data, "train", "plain", "examples/some", **PLAIN)
    same = kd(data, "train", "same", "examples/some", **PLAIN, average=0.0)
    mean = kd(data, "train", "mean", "examples/some", **PLAIN, average=0.9)
    assert losses(mean) == losses(plain) and weights(same) == weights(plain) != weights(mean)
    start, end, between = (load(f, "float32").state_dict() for f in (data / "models/base", plain, mean))
    name = "transformer.h.0.mlp.c_fc.weight"
    assert (between[name] - start[name]).norm() < (end[name] - start[name]).norm()


def _killed_at(folder: Path, step: int) -> None:
    real = How.progress

    def progress(self: How, done: int, total: int, note: object = "") -> None:
        real(self, done, total, note)
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    How.progress = progress  # type: ignore[method-assign]
    kd(folder, "train", "student", "examples/some", steps=4, **PLAIN | WILD, held_out=HELD, average=0.5)


def test_a_killed_training_that_is_watched_goes_on_to_the_same_bytes(data: Path) -> None:  # noqa: F811
    whole = kd(data, "train", "whole", "examples/some", steps=4, **PLAIN | WILD, held_out=HELD, average=0.5)
    process = multiprocessing.get_context("fork").Process(target=_killed_at, args=(data, 7))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    shutil.rmtree(data / ".runs" / "locks", ignore_errors=True)
    again = kd(data, "train", "student", "examples/some", steps=4, **PLAIN | WILD, held_out=HELD, average=0.5)
    assert weights(again) == weights(whole) and curve_of(again) == curve_of(whole)
