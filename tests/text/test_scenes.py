"""Scenes: what a program says of one, and drawings that are read as what was drawn."""

from __future__ import annotations

import pytest

from pipeline.text import scenes

SCENE = scenes.read("red square 0 0; red cross 0 1; blue square 1 0")
assert SCENE is not None


@pytest.mark.parametrize(("program", "said"), [
    ("count red", "2"), ("count red square", "1"), ("count green", "0"), ("colour cross", "red"),
    ("colour square", None), ("shape blue", "square"), ("shape green", None), ("more red, blue", "yes"),
    ("more blue, red", "no"), ("more red", None), ("left red square, red cross", "yes"),
    ("left red cross, blue square", "no"), ("left square, red cross", None), ("count", None), ("count pink", None),
    ("run red", None), ("", None),
])  # fmt: skip
def test_what_a_program_says(program: str, said: str | None) -> None:
    assert scenes.run(program, SCENE) == said


def test_every_program_has_a_question_of_its_own() -> None:
    every = [program for verb in scenes.VERBS for program in scenes.programs(verb)]
    assert len(every) == len(set(map(scenes.question, every))) > 200
    assert scenes.question("left red square, blue cross") == "is the red square left of the blue cross?"


def test_a_scene_is_written_and_read() -> None:
    assert scenes.read(scenes.written(SCENE)) == SCENE
    assert scenes.caption(SCENE, 2) == "red square top left, red cross top right, blue square bottom left"
    assert scenes.where(scenes.Thing("red", "cross", 1, 2), 3) == "middle right"
    assert scenes.read("red square 0") is scenes.read("red house 0 0") is scenes.read("") is None


def test_a_drawing_is_read_as_what_was_drawn() -> None:
    for grid in (2, 3):
        assert scenes.recognised(scenes.drawn(SCENE, grid)) == SCENE
    drawing = scenes.drawn(SCENE, 2)
    for spoilt in (
        drawing.replace("r", "b", 1), drawing[:-1], drawing.replace(".", "q", 1), drawing + "\n........",
        "a red square", drawing.replace("...", "..r", 1),
    ):  # fmt: skip
        assert scenes.recognised(spoilt) is None
    assert scenes.recognised("\n".join(["." * 8] * 8)) == []
