"""Pairs: two vectors of the sizes that a model reads, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused
from pipeline.tables.tensors import cell

BOTH = {"one": np.ones(3, np.float32), "other": np.zeros(5, np.float32)}


def form(tmp_path: Path) -> Path:
    card = find("origin", "pairs.encoder").factory(outcomes=("b", "a"), numbers=(3, 5), width=4, seed=1)(tmp_path)
    assert json.loads((tmp_path / "tokenizer/places.json").read_text("utf-8"))["outcomes"] == ["a", "b"]
    assert card["backend"] == "network.local"
    return tmp_path / "tokenizer"


def test_a_pair_has_a_class_or_none(tmp_path: Path) -> None:
    network, told = find("network", "pairs.encoder").factory(), form(tmp_path)
    assert network.pack(told, [], "b", cell(BOTH)).token_ids == [1]
    assert network.pack(told, [], "?", cell(BOTH)).told == ""
    assert "is none of the student's outcomes" in network.pack(told, [], "c", cell(BOTH)).told


@pytest.mark.parametrize(("changed", "said"), [
    ({"one": None}, "is about other, and a network of pairs needs an input called 'one'"),
    ({"one": np.ones(4, np.float32)}, "has 4 numbers in 'one', and the model reads 3"),
    ({"other": np.ones((5, 1), np.float32)}, "'other' that is no vector of real numbers"),
    ({"other": np.arange(5)}, "'other' that is no vector of real numbers"),
    ({"other": np.full(5, np.nan, np.float32)}, "'other' has 5 numbers that are not finite"),
])  # fmt: skip
def test_what_is_no_pair_is_refused(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    given = {name: value for name, value in {**BOTH, **changed}.items() if value is not None}
    with pytest.raises(Refused, match=said):
        find("network", "pairs.encoder").factory().pack(form(tmp_path), [], "b", cell(given))


def test_an_outcome_has_a_name_of_its_own() -> None:
    for names in (("a", "a"), ("a", "?")):
        with pytest.raises(Refused, match="each needs a name of its own"):
            find("origin", "pairs.encoder").factory(outcomes=names, numbers=(3, 5), width=4, seed=1)(Path())
