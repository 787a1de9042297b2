"""Tokens for a language model: the tokenizer of another, with embeddings for what it did not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PositiveInt
from tokenizers import Tokenizer

from pipeline.core.methods import find, lazy
from pipeline.errors import Refused
from pipeline.kinds.backend import card_of
from pipeline.kinds.builder import Builder, builder
from pipeline.kinds.origin import Card
from pipeline.model import heads
from pipeline.model.folder import CAUSAL, TOKENIZER_FILES, finish

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

# How tokenizers write the space before a word.
SPACES = str.maketrans("\u2581", "\u0120")
# What the special tokens of two models have in common, however they are written.
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
# A direction that the chosen atoms already span, beside the length of the atom.
SPANNED = 1e-9
# Targets that are looked at together.
BLOCK = 512


@builder(bases=(CAUSAL,), donors=(CAUSAL,), keeps=False, random=False, finds=("network",))
def omp(*, k: PositiveInt = 64, normalize_atoms: bool = True) -> Builder:
    """The base with the donor's tokenizer: tokens that both know keep the base's embedding, every other one becomes the
    same combination of those as it is, in the donor, of the donor's: orthogonal matching pursuit with k of them.

    A head that is not tied to the embedding is made likewise from the donor's head.
    Paper: Goddard and Fernandes Neto 2025 (Training-free tokenizer transplantation via orthogonal matching pursuit,
    arXiv 2506.06607).
    Differs: `normalize_atoms` chooses by the cosine and not by the inner product, which favours long embeddings (of
    300 combinations of 3 among 40 it finds 232 whole, and `false`, as released, 129); special tokens of one role are
    one token, however they are written.
    """

    def make(base: Path, donor: Path, out: Path, seed: int) -> Card:
        network: Any = find("network", CAUSAL).factory()
        net, taken = network.load(base, "float32"), network.load(donor, "float32")
        if heads.of(net):
            raise Refused(f"{base.name} has heads beside its own, over its own tokens: give it other tokens first")
        mine, theirs = _tokens(base), _tokens(donor)
        # Of two roles that one token of the donor's has, the first in order decides: `eos` before `pad`.
        shared = {theirs[token]: mine[token] for token in sorted(set(mine) & set(theirs), reverse=True)}
        if not shared:
            raise Refused(f"{base.name} and {donor.name} have no token in common, so nothing can be carried over")
        lines = ("get_input_embeddings",) if net.config.tie_word_embeddings else (
            "get_input_embeddings", "get_output_embeddings",
        )  # fmt: skip
        size = taken.get_input_embeddings().weight.shape[0]
        made = {
            line: carried(
                getattr(taken, line)().weight.detach().numpy(),
                getattr(net, line)().weight.detach().numpy(),
                np.array(sorted(shared)),
                np.array([shared[number] for number in sorted(shared)]),
                k,
                normalize_atoms,
            )
            for line in lines
        }
        bias = getattr(net.get_output_embeddings(), "bias", None)
        if bias is not None:
            raise Refused(f"the head of {base.name} has a bias for every token, which cannot be carried over")
        net.resize_token_embeddings(size, mean_resizing=False)
        with torch.no_grad():
            for line, weight in made.items():
                getattr(net, line)().weight.copy_(torch.from_numpy(weight))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            for config in ("config", "generation_config"):
                setattr(getattr(net, config), name, getattr(getattr(taken, config), name, None))
        dtype = card_of(base)["dtype"]
        network.save(net.to(getattr(torch, dtype)), out)
        for file in TOKENIZER_FILES:
            if (donor / file).exists():
                shutil.copyfile(donor / file, out / file)
        return finish(out, dtype)

    return make


def _tokens(folder: Path) -> dict[str, int]:
    """The tokens of a model and their ids, those of a role by its name."""
    known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    found = {token.translate(SPACES): number for token, number in known.items()}
    told = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    for role in ROLES:
        token = told.get(role)
        token = token["content"] if isinstance(token, dict) else token
        if token in known:
            found.pop(token.translate(SPACES), None)
            found[f"<{role}>"] = known[token]
    return found


def carried(
    donor_VD: np.ndarray, base_WE: np.ndarray, theirs_S: np.ndarray, mine_S: np.ndarray, k: int, normalize_atoms: bool
) -> np.ndarray:
    """Embeddings [V, E] in the base's space for all tokens of a donor; S are those that both know."""
    made_VE = np.zeros((len(donor_VD), base_WE.shape[1]), np.float32)
    made_VE[theirs_S] = base_WE[mine_S]
    new = np.setdiff1d(np.arange(len(donor_VD)), theirs_S)
    for block in np.array_split(new, -(-len(new) // BLOCK) or 1):
        at_TK, share_TK = pursued(donor_VD[theirs_S], donor_VD[block], k, normalize_atoms)
        made_VE[block] = np.einsum("tk,tke->te", share_TK, base_WE[mine_S][at_TK])
    return made_VE


def pursued(
    atoms_SD: np.ndarray, targets_TD: np.ndarray, k: int, normalize_atoms: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal matching pursuit: for each target k atoms, in the order in which they were chosen, and how much of
    each there is in it (least squares), both [T, K]. Of atoms that are as good the first is taken."""
    atoms_SD, targets_TD = atoms_SD.astype(np.float64), targets_TD.astype(np.float64)
    k, count = min(k, *atoms_SD.shape), len(targets_TD)
    length_S = np.linalg.norm(atoms_SD, axis=1)
    scale_S = np.where(length_S > 0, length_S, np.inf) if normalize_atoms else 1.0
    rest_TD, at_TK = targets_TD.copy(), np.zeros((count, k), np.int64)
    basis_TKD, rows = np.zeros((count, k, atoms_SD.shape[1])), np.arange(count)
    free_TS = np.ones((count, len(atoms_SD)), bool)
    for i in range(k):
        fit_TS = np.where(free_TS, np.abs(rest_TD @ atoms_SD.T) / scale_S, -1)
        at_TK[:, i] = fit_TS.argmax(1)
        free_TS[rows, at_TK[:, i]] = False
        new_TD = atoms_SD[at_TK[:, i]]
        for _ in range(2):
            new_TD = new_TD - np.einsum("tkd,tk->td", basis_TKD, np.einsum("tkd,td->tk", basis_TKD, new_TD))
        size_T = np.linalg.norm(new_TD, axis=1)
        spanned_T = size_T <= SPANNED * length_S[at_TK[:, i]]
        basis_TKD[:, i] = np.where(spanned_T[:, None], 0, new_TD / np.where(spanned_T, 1, size_T)[:, None])
        rest_TD = rest_TD - basis_TKD[:, i] * np.einsum("td,td->t", basis_TKD[:, i], rest_TD)[:, None]
    pairs = zip(at_TK, targets_TD, strict=True)
    share_TK = [np.linalg.lstsq(atoms_SD[at].T, target, rcond=None)[0] for at, target in pairs]
    return at_TK, np.array(share_TK).reshape(count, k)
