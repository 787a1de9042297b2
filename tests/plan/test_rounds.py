"""Rounds: entries that are written once, and become plain ones, in the text that a user wrote."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.commands import unroll
from pipeline.errors import Refused
from pipeline.plan.faults import PlanError
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.rounds import appended, choices, chosen, joined, of_round, promising, with_rounds, written

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "rounds.yaml"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that parameters name are looked for beside params.yaml."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def given() -> dict[str, Any]:
    return load(RECIPE)


def test_a_round_names_itself_and_the_one_before(given: dict[str, Any]) -> None:
    entries = of_round(given, 3)
    assert entries["generate"]["led_3"]["model"] == "led_2"
    assert entries["select"]["led_3"]["of"] == "responses/round_3"
    assert entries["ingest"]["tasks_3"]["seed"] == 3
    assert "<" not in yaml.safe_dump(entries)


def test_rounds_are_written_behind_those_that_are_there_and_the_rest_of_the_text_stays(given: dict[str, Any]) -> None:
    text = RECIPE.read_text("utf-8")
    two = appended(text, with_rounds(given, 2))
    kept = iter(two.splitlines())
    assert all(line in kept for line in text.splitlines())
    assert written(yaml.safe_load(two)) == 2
    three = appended(two, with_rounds(yaml.safe_load(two), 1))
    assert yaml.safe_load(three) == joined(given, with_rounds(given, 3))
    resolve(yaml.safe_load(three))


def test_sections_that_are_empty_or_left_out_are_written(given: dict[str, Any]) -> None:
    entries = {"gaps": {"a_1": {"of": "x"}}, "derive": {"b_1": {"of": "y"}}}
    for text in ("seed: 1\ngaps: {}\ntrain: {}\n", "gaps: {}", "train: {}\n"):
        assert yaml.safe_load(appended(text, entries)) == joined(yaml.safe_load(text), entries)
    with pytest.raises(Refused, match="gaps: its entries stand in one line"):
        appended("gaps: {old: {of: z}}\n", entries)


FAULTS = {
    "no mapping": ({"rounds": [1]}, r"rounds: must be a mapping of sections"),
    "no such section": ({"rounds": {"trian": {}}}, r"rounds\.trian: no such section; did you mean train"),
    "no entries": ({"rounds": {"train": 3}}, r"rounds\.train: must be a mapping of entries"),
    "one entry for all": (
        {"rounds": {"train": {"kd": {}}}},
        r"rounds\.train\.kd: would be the same entry in every round",
    ),
    "nobody's gain": (
        {"rounds": {"choose": {"teacher": ["a", "b"]}, "train": {"kd_<round>": {}}}},
        r"rounds\.choose\.by: must be whose gain counts, one of kd, not None",
    ),
    "no number": (
        {"rounds": {"choose": {"by": "kd", "explore": "much"}, "train": {"kd_<round>": {}}}},
        r"rounds\.choose\.explore: must be a number of points, not 'much'",
    ),
    "choices that are none": (
        {"rounds": {"choose": [1]}},
        r"rounds\.choose: must be a mapping from names to lists",
    ),
    "one value": (
        {"rounds": {"choose": {"by": "kd", "teacher": ["a"]}, "train": {"kd_<round>": {}}}},
        r"rounds\.choose\.teacher: must be a list of two or more texts or numbers, not \['a'\]",
    ),
    "a number's name": (
        {"rounds": {"choose": {"by": "kd", "round": [1, 2]}, "train": {"kd_<round>": {}}}},
        r"rounds\.choose\.round: stands for a number already",
    ),
    "a choice in a name": (
        {"rounds": {"train": {"kd_<teacher>_<round>": {}}}},
        r"rounds\.train\.kd_<teacher>_<round>: a name cannot hold what a round chooses",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_wrong_with_the_section_is_told(case: str, given: dict[str, Any]) -> None:
    change, told = FAULTS[case]
    with pytest.raises(PlanError) as error:
        resolve({**given, **change})
    (fault,) = error.value.faults
    assert re.match(told, fault)


def test_half_a_round_and_no_section_are_refused(given: dict[str, Any]) -> None:
    half = joined(given, {"train": {"led_1": {}}})
    with pytest.raises(Refused, match=r"round 1 is there in part: ingest\.tasks_1 is missing, beside train\.led_1"):
        with_rounds(half, 1)
    with pytest.raises(Refused, match="no section `rounds:`"):
        with_rounds({}, 1)


BANDIT = load(ROOT / "recipes" / "bandit.yaml")


def test_a_round_tries_what_gained_most_and_what_was_tried_least() -> None:
    """Of two teachers and three domains one pair gains; after each was looked at it is the pair that is tried."""
    worth = {"large": 4.0, "small": 0.0, "add": 0.0, "mod": 1.0, "sort": 5.0}
    given, gains, tried = BANDIT, dict[int, float](), []
    for number in range(1, 13):
        given = joined(given, with_rounds(given, 1, gains))
        choice = chosen(given, number)
        assert choice is not None
        assert given["generate"][f"led_{number}"]["model"] == choice["teacher"]
        assert given["ingest"][f"led_{number}"]["domains"] == {choice["domain"]: 1}
        gains[number] = worth[choice["teacher"]] + worth[choice["domain"]]
        tried.append(choice)
    resolve(given)
    best = {"teacher": "large", "domain": "sort"}
    assert tried[0] == choices(BANDIT)[0] and tried[-5:] == [best] * 5


def test_rounds_without_any_gain_try_all() -> None:
    """Nothing is known of them, or nothing was gained: what was tried least goes first."""
    given = joined(BANDIT, with_rounds(BANDIT, 6))
    tried = [chosen(given, number) for number in range(1, 7)]
    assert {choice["domain"] for choice in tried if choice} == {"add", "mod", "sort"}
    assert {choice["teacher"] for choice in tried if choice} == {"small", "large"}


def test_a_round_that_was_edited_is_of_no_choice_and_teaches_nothing() -> None:
    given = joined(BANDIT, with_rounds(BANDIT, 1))
    given["train"] = {**given["train"], "led_1": {**given["train"]["led_1"], "epochs": 9}}
    assert chosen(given, 1) is None
    assert promising(given, 1, {1: 50.0}) == choices(BANDIT)[0]


def test_the_commands(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(ROOT / "data/embedded", tmp_path / "data/embedded")
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (tmp_path / "params.yaml").write_bytes(RECIPE.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["unroll", "--rounds", "2"]) == 0
    assert "rounds 1 to 2 are there, 32 entries of them new" in capsys.readouterr().out
    assert main(["check"]) == 0
    assert "57 instances, and 19 more in every further round" in capsys.readouterr().out
    assert main(["unroll", "--rounds", "0"]) == 1
    assert main(["unroll", "led_1", "--rounds", "1"]) == 1
    assert "it takes no training" in capsys.readouterr().err
    text = (tmp_path / "params.yaml").read_text("utf-8").replace("model: led_<before>", "model: lead_<before>")
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    assert main(["check"]) == 1
    assert "generate.led_3" in capsys.readouterr().err


def test_unroll_asks_what_earlier_rounds_gained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(ROOT / "data/embedded", tmp_path / "data/embedded")
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (tmp_path / "params.yaml").write_bytes((ROOT / "recipes" / "bandit.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    told = {"led": [{"round": 1, "gain": -50.0}]}
    monkeypatch.setattr(unroll, "history", lambda given, by: told[by] if written(given) else [])
    assert main(["unroll", "--rounds", "1"]) == 0
    assert main(["unroll", "--rounds", "1"]) == 0
    given = load(tmp_path / "params.yaml")
    assert chosen(given, 1) == {"teacher": "small", "domain": "add"}
    assert chosen(given, 2) == {"teacher": "large", "domain": "mod"}
