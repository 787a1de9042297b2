"""Laws of origins: what one declares, which plan relies on before anything is there, is what its model is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.methods import Method, find, shipped
from pipeline.kinds.origin import Card, Origin
from pipeline.laws.law import Broken, build, must
from pipeline.model.folder import network_of
from tests.laws.ours import named, ours

ROOT = Path(__file__).parents[2]
SIZES = {"width": 8, "layers": 1, "heads": 2, "context": 64, "seed": 1}
PICTURES = {"outcomes": ["b", "a"], "size": [8, 8], "channels": 1, "seed": 1}
WHOLE = {"size": [8, 8], "channels": 1, "patch": 4}
NODES = {"outcomes": ["b", "a"], "numbers": 3, "widths": [4], "seed": 1}
# What each is made with here. One that is not listed must be in LEFT_OUT.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "fake.words": [{}, {"wrong": 0.5}],
    "fresh.gpt2": [{"alphabet": "abc", "prompt_width": 4, **SIZES}],
    "local.embedded": [{"name": "base"}, {"name": "base", "engine": "vllm"}],
    "local.folder": [{"path": "data/embedded/base"}, {"path": "data/embedded/base", "dtype": "bfloat16"}],
    "local.solutions": [{}],
    "remote.endpoint": [{"model": "m", "version": "1"}, {"model": "m", "version": "1", "logprobs": True}],
    "dense.conv": [{**PICTURES, "widths": [4, 8]}],
    "dense.points": [{**{k: v for k, v in PICTURES.items() if k != "outcomes"}, "parts": ["a", "b"], "widths": [4]}],
    "dense.segformer": [{**PICTURES, "widths": [4, 8], "heads": 2}],
    "graph.gcn": [NODES, {**NODES, "dropout": 0.5}],
    "graph.mlp": [NODES],
    "points.denoiser": [{"width": 8, "layers": 1, "seed": 1}],
    "points.canvas": [{"samples": 4, "seed": 1}],
    "diffusion.pictures": [{"size": [4, 4], "width": 8, "layers": 1, "seed": 1}],
    "points.pointnet": [{"outcomes": ["b", "a"], "widths": [4], "seed": 1}],
    "pairs.encoder": [{"outcomes": ["b", "a"], "numbers": [3, 5], "seed": 1}],
    "points.surroundings": [{**PICTURES, "widths": [4]}],
    "points.camera": [{**PICTURES, "widths": [4, 8]}],
    "vision.conv": [{**PICTURES, "widths": [4, 8]}],
    "vision.vit": [{**PICTURES, "patch": 4, "width": 8, "layers": 1, "heads": 2}],
    "vision.patches": [{**WHOLE, "width": 8, "layers": 1, "heads": 2, "seed": 1}],
    "analytic.hog": [WHOLE, {**WHOLE, "bins": 4}],
    "analytic.pixels": [WHOLE],
    "text.masked": [{"alphabet": "abc", **SIZES}, {"alphabet": "abc", "run": 2, **SIZES}],
    "fresh.llava": [
        {
            "alphabet": "abc",
            "size": 8,
            "patch": 4,
            "width": 8,
            "layers": 1,
            "heads": 2,
            "tower": 1,
            "context": 16,
            "seed": 1,
        }
    ],
    "text.bert": [{"alphabet": "abc", "outcomes": ["a", "b"], **SIZES}],
}
LEFT_OUT = {
    "gguf.package": "it takes minutes: tests/stages/test_real_model.py makes it",
    "graph.geometric": "it needs torch_geometric: tests/networks/test_extras.py makes it where that is installed",
    "diffusion.unet": "it needs diffusers: tests/networks/test_extras.py makes it where that is installed",
    "vision.folder": "it reads a folder of the user's: tests/networks/test_classifier.py makes one",
    "remote.hub": "it asks the hub: tests/origins/test_remote.py gives it one",
}


@dataclass(frozen=True)
class Case:
    """An origin with arguments."""

    method: Method
    arguments: Mapping[str, Any]
    origin: Origin

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.arguments.items() if k not in SIZES)])

    def declared(self, trait: str) -> Any:
        found = self.method.traits.get(trait)
        return found(self.method.arguments.model_validate(self.arguments).model_dump()) if callable(found) else found


def one_or_several(named: Any) -> tuple[str, ...]:
    return (named,) if isinstance(named, str) else tuple(named)


def the_card_is_as_declared(case: Case, out: Path) -> None:
    """Its backend, and the network of its folder, are those that it declares, so that plan knows whose code counts."""
    card = case.origin(out)
    json.dumps(card)
    must(isinstance(card.get("model_id"), str) and card["model_id"] != "", f"the card is {card}")
    for kind, found in (("backend", card.get("backend")), ("network", network_of(out))):
        declared = case.declared(kind)
        # What has no folder has no network.
        if declared is not None and (kind == "backend" or (out / "config.json").exists()):
            must(found in one_or_several(declared), f"its {kind} is {found}, and declared is {declared}")


def it_gives_no_more_than_its_backend(case: Case, out: Path) -> None:
    """`plan` lets a stage need what an origin gives, and the backend has to give it."""
    for name in one_or_several(case.declared("backend") or ()):
        more = set(case.declared("gives")) - set(find("backend", name).traits["gives"])
        must(not more, f"{name} does not give {', '.join(sorted(more))}")


def the_same_model_every_time(case: Case, out: Path) -> None:
    """Two folders are one model: its id is of what decides an answer, not of when it was made."""
    for name in ("one", "two"):
        (out / name).mkdir()
    must(case.origin(out / "one") == case.origin(out / "two"), "a second folder has another card")


Law = Callable[[Case, Path], None]
LAWS: tuple[Law, ...] = (the_card_is_as_declared, it_gives_no_more_than_its_backend, the_same_model_every_time)
CASES = [Case(m, given, build(m, given)) for m in ours("origin") for given in ARGUMENTS.get(m.name, [])]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("law", LAWS, ids=named)
def test_law(law: Law, case: Case, out: Path) -> None:
    law(case, out)


def test_every_origin_is_under_the_laws_or_left_out_for_a_reason() -> None:
    assert sorted([*ARGUMENTS, *LEFT_OUT]) == sorted(shipped("origin"))


@pytest.mark.parametrize("method", ours("origin"), ids=lambda method: method.name)
def test_what_an_origin_names_exists(method: Method) -> None:
    for kind in ("backend", "network"):
        named = method.traits.get(kind)
        assert kind in method.traits or method.name == "remote.hub", f"{method.name} declares no {kind}"
        if named is not None and not callable(named):
            assert set(one_or_several(named)) <= set(shipped(kind))


def card(**content: Any) -> Callable[[Path], Card]:
    return lambda out: {"backend": "fake.words", "model_id": "m", **content}


BROKEN: dict[str, tuple[Law, dict[str, Any], Callable[[Path], Card]]] = {
    "another backend": (the_card_is_as_declared, {}, card(backend="local.model")),
    "no id": (the_card_is_as_declared, {}, card(model_id="")),
    "gives too much": (it_gives_no_more_than_its_backend, {"gives": ("generate", "gradients")}, card()),
    "a new id": (the_same_model_every_time, {}, lambda out: card(model_id=str(out))(out)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_origin_breaks_a_law(fault: str, out: Path) -> None:
    law, traits, broken = BROKEN[fault]
    [sound, *_] = [case for case in CASES if case.method.name == "fake.words"]
    method = replace(sound.method, traits={**sound.method.traits, **traits})
    with pytest.raises(Broken):
        law(replace(sound, method=method, origin=broken), out)
