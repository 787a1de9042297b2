"""Classifiers of pictures: outcomes by name in whatever order a folder has them, and what cannot be looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from pipeline.asking.ask import requests_for  # noqa: E402
from pipeline.commands.doctor import doctor  # noqa: E402
from pipeline.contracts import PROMPTS  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import GenerateRequest, Sampling, Tokens, Want, open_model  # noqa: E402
from pipeline.model.folder import hashes  # noqa: E402
from pipeline.plan.reading import load  # noqa: E402
from pipeline.plan.resolve import resolve  # noqa: E402
from pipeline.tables.tensors import cell  # noqa: E402
from tests.tables.test_pictures import saved  # noqa: E402

ROOT = Path(__file__).parents[2]
GREEDY = Sampling(0.0, 1.0, 8)
MADE: dict[str, Any] = {"outcomes": ["cat", "ant", "bee"], "size": [8, 8], "channels": 3, "seed": 4}
PICTURES = [np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8) for i in range(5)]
ASKED = [{"role": "user", "content": ""}]


def made(out: Path, use: str, **arguments: Any) -> Path:
    """A model folder of an origin."""
    out.mkdir()
    method = find("origin", use)
    given = method.arguments.model_validate(arguments).model_dump()
    (out / "model.json").write_text(json.dumps(method.factory(**given)(out)), "utf-8")
    return out


def theirs(out: Path, names: list[str], order: list[int]) -> Path:
    """A ViT as a user keeps it, with its outcomes in some order; the same model whatever the order is."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        id2label={i: names[j] for i, j in enumerate(order)}, label2id={names[j]: i for i, j in enumerate(order)},
    )  # fmt: skip
    net = transformers.ViTForImageClassification(config)
    with torch.no_grad():
        net.classifier.bias.copy_(torch.tensor([0.3, -0.2, 0.1]))
        for weight in net.classifier.parameters():
            weight.copy_(weight[torch.tensor(order)])
    net.save_pretrained(out)
    normal = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
    (out / "preprocessor_config.json").write_text(json.dumps(normal), "utf-8")
    return out


def read(folder: Path, tmp_path: Path) -> np.ndarray:
    """Log-probabilities of all outcomes of every picture, in the order of their columns."""
    asked = [Tokens(f"{i}", [0], [0], cell({"image": p})) for i, p in enumerate(PICTURES)]
    with open_model(folder, How(RunSettings(device="cpu", batch_rows=2), tmp_path, "probe@teacher")) as opened:
        found = {r.id: r for r in opened.read(asked, Want(top_k=3))}
    said = np.zeros((len(PICTURES), 3))
    for i in range(len(PICTURES)):
        said[i, found[str(i)].topk_ids[0]] = found[str(i)].topk_logprobs[0]
    return said


def test_outcomes_are_mapped_by_name(tmp_path: Path) -> None:
    names = ["cat", "ant", "bee"]
    folders = [
        made(tmp_path / f"m{i}", "vision.folder", path=str(theirs(tmp_path / f"t{i}", names, order)))
        for i, order in enumerate(([0, 1, 2], [2, 0, 1]))
    ]
    assert len({hashes(folder / "tokenizer") for folder in folders}) == 1
    one, other = (read(folder, tmp_path) for folder in folders)
    np.testing.assert_allclose(one, other, atol=1e-6)
    net = transformers.ViTForImageClassification.from_pretrained(tmp_path / "t0").eval()
    pixels = (torch.from_numpy(np.stack(PICTURES)) / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor(
        [0.2, 0.25, 0.3]
    )
    with torch.no_grad():
        expected = net(pixels.permute(0, 3, 1, 2)).logits.log_softmax(1).numpy()
    np.testing.assert_allclose(one, expected[:, [1, 2, 0]], atol=1e-5)


def test_other_outcomes_are_another_form(tmp_path: Path) -> None:
    student = made(tmp_path / "s", "vision.conv", **MADE, widths=[4])
    teacher = made(
        tmp_path / "t", "vision.vit", **{**MADE, "outcomes": ["cat", "ant", "dog"]}, patch=4, width=8, layers=1, heads=1
    )
    like = made(tmp_path / "l", "vision.vit", **MADE, patch=4, width=8, layers=1, heads=1)
    assert hashes(student / "tokenizer") == hashes(like / "tokenizer") != hashes(teacher / "tokenizer")


def test_a_saved_model_is_in_the_order_of_its_form(tmp_path: Path) -> None:
    """Also for other programs: what is kept says by `id2label` what its rows are."""
    folder = made(tmp_path / "m", "vision.folder", path=str(theirs(tmp_path / "t", ["cat", "ant", "bee"], [2, 0, 1])))
    network = find("network", "classifier.image").factory()
    network.save(network.load(folder, "float32"), tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "config.json").read_text("utf-8"))
    assert list(kept["id2label"].values()) == ["ant", "bee", "cat"] and kept["image_mean"] == [0.4, 0.5, 0.6]


def test_it_answers_with_a_name(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "vision.conv", **MADE, widths=[4, 8])
    asked = [GenerateRequest(f"{i}", f"p{i}", ASKED, 0, i, inputs=cell({"image": p})) for i, p in enumerate(PICTURES)]
    asked.append(GenerateRequest("png", "p", ASKED, 0, 0, inputs=cell({"image": saved(PICTURES[0])})))
    with open_model(folder, How(RunSettings(device="cpu", batch_rows=2), tmp_path, "generate@teacher")) as opened:
        found = {a.request_id: a for a in opened.generate(asked, GREEDY)}
    best = read(folder, tmp_path).argmax(1)
    assert [found[str(i)].content for i in range(5)] == [["ant", "bee", "cat"][b] for b in best]
    assert found["png"].content == found["0"].content and found["png"].prompt_tokens is None


@pytest.mark.parametrize(("inputs", "said"), [
    ({"image": PICTURES[0][:, :, :1]}, "is a picture of 8 x 8 x 1, and the model looks at 8 x 8 x 3"),
    ({"image": PICTURES[0][:4]}, r"4 x 8 x 3, and .* `size: \[8, 8\]` and `channels: 3`"),
    ({"image": PICTURES[0].astype(np.float32)}, "is float32 of"),
    ({"x": PICTURES[0]}, "is about x, and a classifier of pictures needs an input called 'image'"),
    (None, "is about nothing but words"),
])  # fmt: skip
def test_what_it_cannot_look_at_is_refused(inputs: dict | None, said: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "vision.conv", **MADE, widths=[4])
    network = find("network", "classifier.image").factory()
    with pytest.raises(Refused, match=said):
        network.pack(folder / "tokenizer", ASKED, "cat", inputs and cell(inputs))


@pytest.mark.parametrize("use", ["language.causal", "classifier.text"])
def test_a_network_of_texts_is_shown_no_picture(use: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"is about image, and a .* reads words alone"):
        find("network", use).factory().pack(tmp_path, ASKED, "cat", cell({"image": PICTURES[0]}))


def test_a_model_of_words_is_asked_about_no_picture(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "fake.words")
    row = {
        "prompt_id": "p",
        "messages": ASKED,
        "domain": "d",
        "source": "s",
        "group": "g",
        "inputs": cell({"image": PICTURES[0]}),
    }
    pool = pa.Table.from_batches([PROMPTS.rows([row])])
    with pytest.raises(Refused, match=r"prompt p is about arrays \(image\), and m is asked in words alone"):
        requests_for(pool, folder, GREEDY, 1, 0)


def test_an_unknown_class_is_an_unknown_place(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "vision.conv", **MADE, widths=[4])
    network = find("network", "classifier.image").factory()
    packed = network.pack(folder / "tokenizer", ASKED, "dog", cell({"image": PICTURES[0]}))
    assert packed.token_ids == [-1] and "none of the student's outcomes" in packed.told


@pytest.mark.parametrize(("use", "changed", "said"), [
    ("vision.conv", {"outcomes": ["a", "b", "a"], "widths": [4]}, "two outcomes are called 'a'"),
    ("vision.conv", {"widths": [4, 6]}, "a width of 6 is not 4 equal groups"),
    ("vision.conv", {"widths": [4] * 5}, "cannot be halved 4 times"),
    ("vision.vit", {"patch": 3, "width": 8, "layers": 1, "heads": 1}, "are not whole patches of 3"),
])  # fmt: skip
def test_a_model_that_cannot_be_made_is_refused(use: str, changed: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        made(tmp_path / "m", use, **{**MADE, **changed})


@pytest.mark.parametrize(("change", "said"), [
    (lambda told: told.pop("id2label"), "has no id2label"),
    (lambda told: told.pop("image_size"), "has no image_size"),
])  # fmt: skip
def test_a_folder_that_says_too_little_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    place = theirs(tmp_path / "t", ["cat", "ant", "bee"], [0, 1, 2])
    told = json.loads((place / "config.json").read_text("utf-8"))
    change(told)
    (place / "config.json").write_text(json.dumps(told), "utf-8")
    with pytest.raises(Refused, match=said):
        made(tmp_path / "m", "vision.folder", path=str(place))


def test_the_doctor_knows_a_model_without_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    place = theirs(tmp_path / "vit", ["cat", "ant", "bee"], [0, 1, 2])
    params = load(ROOT / "recipes" / "images.yaml")
    params["acquire"]["large"] = {"use": "vision.folder", "path": str(place)}
    params["watch"] = {"vit": str(place)}
    found = [c for c in doctor(resolve(params), Path("data"), Path(), offline=True) if c.name == "acquire@large"]
    assert [(c.state, "MB of weights" in c.text) for c in found if str(place) in c.text] == [("ok", True)]
