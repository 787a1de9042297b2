"""Sequences: the class is what was planted or follows, and what is changed, hidden or stray is as much as is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.core.methods import find
from pipeline.errors import Refused


def rows(name: str = "dna", **arguments: Any) -> list[dict[str, Any]]:
    source = find("source", f"sequences.{name}").factory
    return [dict(row.columns) for row in source(**{"rows": 60, "seed": 3, **arguments})]


def pieces(row: dict[str, Any], length: int = 9, step: int = 3) -> set[str]:
    text = row["messages"][0]["content"]
    return {text[i : i + length] for i in range(0, len(text) - length + 1, step)}


def test_every_class_has_a_motif_of_its_own() -> None:
    whole = rows(mutated=0.0)
    for name in {row["reference"] for row in whole}:
        shared = set.intersection(*(pieces(row) for row in whole if row["reference"] == name))
        assert len(shared) == 1
        assert not any(shared & pieces(row) for row in whole if row["reference"] != name)
    assert {len(row["messages"][0]["content"]) for row in whole} == {36}
    assert {row["reference"] for row in rows(seed=4)} == {f"motif {i}" for i in range(4)}


def test_some_letters_are_changed_and_some_solutions_wrong() -> None:
    plain, changed = rows(mutated=0.0), rows(mutated=0.3, slip=0.5)
    assert [row["reference"] for row in plain] == [row["reference"] for row in changed]
    assert sum(row["solution"] != row["reference"] for row in changed) in range(18, 42)
    assert all(row["solution"] == row["reference"] for row in plain)
    assert len(set().union(*map(pieces, changed))) > len(set().union(*map(pieces, plain)))


def test_motifs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Refused, match="2 copies of 9 letters do not fit 20"):
        rows(length=20)


def right(told: list[dict[str, Any]], asked: list[dict[str, Any]], name: str) -> float:
    """The share of things whose kind is that of the nearest mean of a vector."""
    at = {kind: np.mean([r["inputs"][name] for r in told if r["reference"] == kind], 0) for kind in _kinds(told)}
    apart = [[float(np.square(row["inputs"][name] - at[kind]).sum()) for kind in at] for row in asked]
    return float(np.mean([list(at)[int(np.argmin(a))] == r["reference"] for a, r in zip(apart, asked, strict=True)]))


def _kinds(told: list[dict[str, Any]]) -> list[str]:
    return sorted({row["reference"] for row in told})


def test_both_vectors_of_a_thing_tell_its_kind_and_what_is_its_own_hides_it() -> None:
    plain = {"rows": 300, "strengths": (0.0, 0.0)}
    told, asked = rows("baskets", **plain), rows("baskets", **{**plain, "seed": 4})
    assert [v.shape for v in told[0]["inputs"].values()] == [(24,), (48,)] and len(_kinds(told)) == 8
    assert min(right(told, asked, name) for name in ("one", "other")) > 0.95
    told, asked = (rows("baskets", rows=300, seed=seed, strengths=(0.0, 9.0)) for seed in (3, 4))
    assert right(told, asked, "one") > 0.95 and right(told, asked, "other") < 0.5


def test_what_is_hidden_is_zero_and_the_rest_as_it_was() -> None:
    whole, hidden = rows("baskets"), rows("baskets", hides="one")
    assert not any(row["inputs"]["one"].any() for row in hidden)
    assert all((a["inputs"]["other"] == b["inputs"]["other"]).all() for a, b in zip(whole, hidden, strict=True))
    assert [row["reference"] for row in whole] == [row["reference"] for row in hidden]


def test_what_is_taken_next_hangs_on_the_last_and_strays_as_often_as_is_said() -> None:
    def follows(**more: Any) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in rows("baskets", rows=400, ask="next", kinds=4, items=8, **more):
            words = row["messages"][0]["content"].split()
            assert len(words) == 8
            found.setdefault(f"kind {int(words[-1][1:]) % 4}", set()).add(row["reference"])
        return found

    assert sorted(map(len, follows(stray=0.0).values())) == [1] * 4
    assert sorted(map(len, follows(stray=0.5).values())) == [4] * 4


def test_fewer_things_than_kinds_are_refused() -> None:
    with pytest.raises(Refused, match="4 items cannot be of 8 kinds"):
        rows("baskets", ask="next", items=4)
