"""Tokens of another model: the pursuit against its reference, and a model that goes on as it was where it can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipeline.builders.tokens import carried, pursued  # noqa: E402
from pipeline.core.methods import find  # noqa: E402
from pipeline.errors import Refused  # noqa: E402
from pipeline.model import heads  # noqa: E402
from pipeline.model.chat import Chat  # noqa: E402
from pipeline.model.load import load  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "objectives_omp_tokensurgeon.npz"


@pytest.fixture
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


@pytest.mark.parametrize("k", [1, 4, 8])
def test_the_pursuit_is_mergekit_s(golden: dict[str, np.ndarray], k: int) -> None:
    """`batch_omp` of mergekit: the same atoms in the same order, the same combination, the same error."""
    atoms, targets = golden["donor_shared"], golden["donor_targets"]
    at, share = pursued(atoms, targets, k, normalize_atoms=False)
    np.testing.assert_array_equal(at, golden[f"idx_k{k}"])
    np.testing.assert_allclose(share, golden[f"coef_k{k}"], rtol=1e-4, atol=1e-5)
    made = np.einsum("tk,tke->te", share, golden["orig_shared"][at])
    np.testing.assert_allclose(made, golden[f"new_embed_k{k}"], rtol=1e-4, atol=1e-5)
    error = np.linalg.norm(np.einsum("tk,tkd->td", share, atoms[at]) - targets, axis=1)
    np.testing.assert_allclose(error, golden[f"donor_recon_err_k{k}"], rtol=1e-4, atol=1e-5)


def test_with_as_many_atoms_as_numbers_nothing_is_left(golden: dict[str, np.ndarray]) -> None:
    at, share = pursued(golden["donor_shared"], golden["donor_targets"], 64, normalize_atoms=False)
    assert at.shape == golden["idx_k12"].shape
    made = np.einsum("tk,tkd->td", share, golden["donor_shared"][at])
    np.testing.assert_allclose(made, golden["donor_targets"], rtol=1e-6, atol=1e-6)
    new = np.einsum("tk,tke->te", share, golden["orig_shared"][at])
    np.testing.assert_allclose(new, golden["new_embed_k12"], rtol=1e-3, atol=1e-3)


def test_planted_combinations_are_found_where_atoms_have_one_length(golden: dict[str, np.ndarray]) -> None:
    atoms, targets, truth = golden["donor_shared"], golden["sparse_targets"], golden["sparse_true_coef"]
    released, _ = pursued(atoms, targets, 3, normalize_atoms=False)
    np.testing.assert_array_equal(released, golden["sparse_idx_k3"])
    at, share = pursued(atoms, targets, 3, normalize_atoms=True)
    for row, true, before in zip(at, truth, released, strict=True):
        planted = set(np.flatnonzero(true).tolist())
        assert planted <= set(row.tolist()) and (len(planted) == 3 or not planted <= set(before.tolist()))
    np.testing.assert_allclose(share, np.take_along_axis(truth, at, 1), rtol=1e-4, atol=1e-5)


def test_unit_atoms_find_more_of_what_was_planted() -> None:
    """Of 300 combinations of 3 among 40 atoms of 12 numbers, as many as the docstring says."""
    draw = np.random.default_rng(0)
    atoms = draw.normal(size=(40, 12))
    truth = np.stack([draw.permutation(40)[:3] for _ in range(300)])
    targets = np.einsum("tk,tkd->td", draw.normal(size=(300, 3)), atoms[truth])
    found = {unit: np.sort(pursued(atoms, targets, 3, unit)[0], axis=1) for unit in (False, True)}
    whole = {unit: int((at == np.sort(truth, axis=1)).all(1).sum()) for unit, at in found.items()}
    assert whole == {False: 129, True: 232}


@pytest.mark.parametrize("unit", [False, True])
def test_atoms_that_are_equal_or_nothing(unit: bool) -> None:
    """Of equal atoms the first is taken, an atom of zeros last, and what is spanned already adds nothing."""
    atoms = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    at, share = pursued(atoms, np.array([[3.0, 0.0], [0.0, 0.0]]), 2, unit)
    assert at[0].tolist()[0] == 1 and np.isfinite(share).all()
    np.testing.assert_allclose(np.einsum("tk,tkd->td", share, atoms[at]), [[3, 0], [0, 0]], atol=1e-12)


def test_the_donor_s_own_space_is_carried_whole() -> None:
    """Where base and donor have one space, every token is what it was."""
    space = np.random.default_rng(1).normal(size=(30, 8)).astype(np.float32)
    shared = np.arange(20)
    np.testing.assert_allclose(carried(space, space, shared, shared, 8, True), space, rtol=1e-4, atol=1e-4)
    assert carried(space[:20], space, shared, shared, 8, True).shape == (20, 8)


SIZES = {"prompt_width": 0, "width": 16, "layers": 1, "heads": 2, "context": 32}


def made(place: Path, name: str, alphabet: str, **changed: Any) -> Path:
    out = place / name
    out.mkdir()
    method = find("origin", "fresh.gpt2")
    arguments = {**SIZES, "alphabet": alphabet, "seed": len(name), **changed}
    card = method.factory(**method.arguments.model_validate(arguments).model_dump())(out)
    (out / "model.json").write_text(json.dumps(card), "utf-8")
    return out


def transplanted(place: Path, base: Path, donor: Path, **arguments: Any) -> Path:
    out = place / f"{base.name}_{donor.name}"
    out.mkdir()
    method = find("builder", "tokens.omp")
    method.factory(**method.arguments.model_validate(arguments).model_dump())(base, donor, out, 0)
    return out


def test_texts_of_shared_tokens_are_read_as_before(tmp_path: Path) -> None:
    """Another tokenizer, in which the letters stand elsewhere, and three that the base has not."""
    base, donor = made(tmp_path, "base", "abcdef"), made(tmp_path, "donor", "xyzfedcba")
    out = transplanted(tmp_path, base, donor)
    assert (out / "tokenizer.json").read_bytes() == (donor / "tokenizer.json").read_bytes()
    before, after, chats = load(base, "float32"), load(out, "float32"), [Chat(f / "tokenizer") for f in (base, out)]
    one, two = ([chat.tokenizer.token_to_id(letter) for letter in "fadecab"] for chat in chats)
    assert one != two and after.get_input_embeddings().weight.shape == (14, 16)
    with torch.no_grad():
        p, q = before(torch.tensor([one])).logits[0], after(torch.tensor([two])).logits[0]
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(q[:, b], p[:, a])
    assert after.get_input_embeddings().weight.abs().sum(1).min() > 0
    assert after.config.eos_token_id == chats[1].tokenizer.token_to_id("</s>")


def test_what_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    base, donor = made(tmp_path, "base", "abc"), made(tmp_path, "donor", "cba")
    net = load(base, "float32")
    heads.attach(net, {"kd": torch.nn.Linear(16, 8)}, {})
    network = find("network", "language.causal").factory()
    network.save(net, base)
    with pytest.raises(Refused, match="has heads beside its own, over its own tokens"):
        transplanted(tmp_path, base, donor)
