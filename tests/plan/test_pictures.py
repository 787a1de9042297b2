"""What a plan refuses of pictures: rows that stored signals are not of, modules that nobody trains or has twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

ROOT = Path(__file__).parents[2]
LED = {"use": "moves.led"}


def stored(params: dict[str, Any]) -> None:
    params["train"]["kd"]["augment"] = [{"use": "moves.shifted"}]


def nobody(params: dict[str, Any]) -> None:
    params["train"]["sft"] |= {"turns": [{"trains": ["led"], "objectives": params["train"]["sft"].pop("objectives")}]}


def twice(params: dict[str, Any]) -> None:
    params["train"]["sft"]["augment"] = [LED, LED]


def beside(params: dict[str, Any]) -> None:
    params["train"]["sft"] |= {"augment": [LED], "beside": {"led": "student"}}


def of_words(params: dict[str, Any]) -> None:
    params["build"] = {"two": {"base": "small", "donor": "small", "use": "heads.prototypes"}}


FAULTS: dict[Callable[[dict[str, Any]], None], str] = {
    stored: "train.kd: moves.shifted makes rows that the stored signals are not of: use `distill:`",
    nobody: "train.sft: trains 'led', which is no part; there are student",
    twice: "train.sft: augment: 'led' names two modules that learn",
    beside: "train.sft: augment: 'led' names two modules that learn",
    of_words: "build.two: base: small is a classifier.image, and heads.prototypes takes classifier.text",
}


@pytest.mark.parametrize("change", FAULTS)
def test_what_is_amiss_is_said(change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load(ROOT / "recipes" / "images.yaml")
    change(params)
    with pytest.raises(PlanError) as error:
        resolve(params)
    assert any(fault.startswith(FAULTS[change]) for fault in error.value.faults), error.value.faults


def test_an_augmentation_of_pictures_is_not_shown_to_a_network_of_words(given: dict[str, Any]) -> None:
    given["train"]["random_sft"]["augment"] = [{"use": "moves.flipped"}]
    with pytest.raises(PlanError) as error:
        resolve(given)
    assert any("moves.flipped changes image, which a language.causal is not shown" in f for f in error.value.faults)


def test_nothing_is_hidden_of_rows_that_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    params = load(ROOT / "recipes" / "masked.yaml")
    params["train"]["dmjd"]["held_out"] = {"share": 0.1}
    with pytest.raises(PlanError) as error:
        resolve(params)
    assert "train.dmjd: held_out: masks.disjoint hides nothing of rows that are held out" in str(error.value)
