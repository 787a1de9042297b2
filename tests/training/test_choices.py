"""What a recipe may choose about the loop: adapters, memory, what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pipeline.errors import Refused  # noqa: E402
from pipeline.training.adapter import with_adapter  # noqa: E402
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
