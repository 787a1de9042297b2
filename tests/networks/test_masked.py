"""Places that are hidden: what a model of them reads, what a formula says of them, and how they are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyarrow as pa  # noqa: E402

from pipeline.core.methods import find  # noqa: E402
from pipeline.core.run import How  # noqa: E402
from pipeline.core.settings import RunSettings  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.kinds.backend import Tokens, Want, open_model  # noqa: E402
from pipeline.tables.tensors import arrays, cell  # noqa: E402
from pipeline.training import loop  # noqa: E402
from pipeline.training.recipe import Recipe  # noqa: E402
from tests.laws.models import letters, patched  # noqa: E402
from tests.laws.test_networks import in_patches, spelt  # noqa: E402
from tests.networks.test_classifier import ASKED, made  # noqa: E402
from tests.training.test_pictures import augmentations, held, term  # noqa: E402

WHOLE: dict[str, Any] = {"size": [8, 8], "channels": 1, "patch": 4}
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)


def look(network: Any, model: Any, table: pa.Table, hidden: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.look(model, {**network.collate(table), "hidden": hidden}, ()).states_ND


def test_a_hidden_patch_or_letter_says_nothing() -> None:
    """Two rows that differ there alone are one row to the model, and another one where it is seen."""
    other = in_patches(1, 2).to_pylist()
    picture = np.array(arrays(other[0]["inputs"])["image"])
    picture[:4, 4:] = 0
    other[0]["inputs"] = cell({**arrays(other[0]["inputs"]), "image": picture})
    text = spelt(5, 5).to_pylist()
    tokens = np.array(arrays(text[0]["inputs"])["tokens"])
    tokens[2] = (tokens[2] + 1) % 6
    text[0]["inputs"] = cell({"tokens": tokens})
    pictures, texts = in_patches(1, 2), spelt(5, 5)
    for name, make, rows, changed in (
        ("masked.patches", patched, pictures, pa.Table.from_pylist(other, pictures.schema)),
        ("language.masked", letters, texts, pa.Table.from_pylist(text, texts.schema)),
    ):
        torch.manual_seed(0)
        network, model = find("network", name).factory(), make()
        hidden = network.collate(rows)["hidden"].clone()
        seen = look(network, model, rows, hidden), look(network, model, changed, hidden)
        hidden[0, 1] = 1
        unseen = look(network, model, rows, hidden), look(network, model, changed, hidden)
        assert torch.equal(*unseen) and not torch.allclose(*seen) and not torch.allclose(seen[0], unseen[0])


def test_words_are_hidden_as_a_whole(tmp_path: Path) -> None:
    """Of three letters; and the state of a letter hangs on its word alone where nothing else is read."""
    folder = made(tmp_path / "m", "text.masked", alphabet="acgt", run=3, width=8, layers=1, heads=2, context=32, seed=1)
    network = find("network", "language.masked").factory()
    model = network.load(folder, "float32")
    first, second = (
        network.batch([network.asked(folder / "tokenizer", [{"role": "user", "content": text}])])
        for text in ("acgtta", "agctta")
    )
    assert first["hidden"].shape[1] == 15 and (first["hidden"] >= 0).sum() == 6
    for batch in (first, second):
        batch["hidden"] = batch["hidden"].clone()
        batch["hidden"][0, 0] = 1
    with torch.no_grad():
        one, other = (network.look(model, batch, ()).states_ND for batch in (first, second))
    assert torch.equal(one, other) and one.shape == (6, 8)


def test_what_stands_at_patches_is_told_by_a_formula(tmp_path: Path) -> None:
    """A step from left to right is steep across and not down, and its pixels are those of the patch."""
    image = np.zeros((8, 8, 1), np.uint8)
    image[:5, 2:] = 200
    image[5:] = IMAGE[5:]
    told = {}
    for use in ("analytic.hog", "analytic.pixels"):
        folder = made(tmp_path / use, use, **WHOLE)
        packed = (
            find("network", "masked.patches").factory().pack(folder / "tokenizer", ASKED, "any", cell({"image": image}))
        )
        assert packed.token_ids == [0] * 4 and list(packed.spans) == [(0, 4)]
        asked = [Tokens("x", packed.token_ids, [0, 1, 2, 3], packed.inputs)]
        with open_model(folder, How(RunSettings(device="cpu"), tmp_path, "probe@hog")) as opened:
            [found] = opened.read(asked, Want(top_k=1, taps=("last",)))
        told[use] = found.features["last"]
    hog, pixels = told["analytic.hog"], told["analytic.pixels"]
    assert hog.shape == (4, 9) and hog[0].argmax() == 0 and (np.diff(hog[0][1:]) == 0).all()
    patch = image[4:, :4, 0].reshape(-1) / 255.0
    np.testing.assert_allclose(pixels[2], (patch - patch.mean()) / patch.std(), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(pixels.mean(1), 0, atol=1e-5)


def test_hidden_places_are_labelled_and_counted_as_such(tmp_path: Path) -> None:
    """Copies too: 24 pictures of four patches, of each of two copies three are hidden."""
    network = find("network", "masked.patches").factory()
    rows = in_patches(*range(25)).slice(0, 24)
    turn = loop.Turn(("student",), [term("supervised.cross_entropy", where="labelled", per="labelled")])
    trainer = loop.Trainer(
        {"student": patched()}, {"student": network}, [turn],
        held(tmp_path / "rows.arrow", rows), Recipe(epochs=1, batch_rows=24, seed=5), "cpu",
        augment=augmentations(("masks.disjoint", {"share": 0.75, "copies": 2})),
    )  # fmt: skip
    inputs, found = trainer._shown(turn, rows, loop.Step(0, 1, 0, 1), 0)
    assert found.counts["place"] == 192 and found.counts["labelled"] == 144 and found.counts["unlabelled"] == 48
    assert torch.equal(found.target_N >= 0, inputs["hidden"].flatten() == 1)
    assert found.example_N.tolist() == [i for i in range(24) for _ in range(4)] * 2


def test_what_no_patch_can_be_made_of_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "analytic.pixels", **WHOLE)
    network: Any = find("network", "masked.patches").factory()
    with pytest.raises(Refused, match="is a picture of 6 x 6 x 1, and the model looks at 8 x 8 x 1"):
        network.pack(folder / "tokenizer", ASKED, "", cell({"image": IMAGE[:6, :6]}))
    with pytest.raises(Refused, match="has no input 'hidden', so nobody knows its patches"):
        network.shown(cell({"image": IMAGE}))
    with pytest.raises(Refused, match="pictures of 8 x 8 are not whole patches of 3"):
        made(tmp_path / "odd", "vision.patches", **{**WHOLE, "patch": 3}, width=8, layers=1, heads=2, seed=1)
