"""Every builder keeps the laws of `laws/builder.py`, and each of these can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.methods import find
from pipeline.kinds.backend import card_of
from pipeline.laws import builder as laws
from pipeline.laws.builder import Case, Law
from tests.laws.ours import held, named

SOUND = next(laws.cases(find("builder", "heads.dual")))


@pytest.mark.parametrize(("law", "case"), held("builder"), ids=named)
def test_law(law: Law, case: Case) -> None:
    law(case)


def without_a_head(base: Path, donor: Path, out: Path, seed: int) -> dict[str, Any]:
    shutil.copytree(base, out, dirs_exist_ok=True)
    return card_of(base)


def by_the_seed(base: Path, donor: Path, out: Path, seed: int) -> dict[str, Any]:
    return {**SOUND.builder(base, donor, out, seed), "seed": seed}


def into_the_base(base: Path, donor: Path, out: Path, seed: int) -> dict[str, Any]:
    (base / "left").write_text("anew" if not (base / "left").exists() else (base / "left").read_text() + "!")
    return SOUND.builder(base, donor, out, seed)


def another_body(base: Path, donor: Path, out: Path, seed: int) -> dict[str, Any]:
    card = SOUND.builder(base, donor, out, seed)
    (out / "model.json").write_text(json.dumps(card), "utf-8")
    network, net = laws.opened(out)
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    shutil.rmtree(out / "heads")
    network.save(net, out)
    return card


BROKEN: dict[str, tuple[Law, Callable[..., dict[str, Any]]]] = {
    "no head": (laws.a_whole_model, without_a_head),
    "the seed": (laws.the_same_of_the_same, by_the_seed),
    "into the base": (laws.nothing_is_written_into_what_it_reads, into_the_base),
    "another body": (laws.what_reads_the_text_is_the_base, another_body),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_builder_breaks_a_law(fault: str) -> None:
    law, builder = BROKEN[fault]
    with pytest.raises(AssertionError):
        law(replace(SOUND, builder=builder))
    (SOUND.folders[0] / "left").unlink(missing_ok=True)
