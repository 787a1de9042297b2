"""A workspace outside a clone: made whole, pinned to the package, with methods of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.core import identity, methods, shipped
from pipeline.plan import pin
from pipeline.plan.map import entries
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve

OWN = '''from pipeline.kinds.scorer import scorer
from pipeline.kinds.scorer import Scorer


@scorer(reads=("content",))
def length(*, least: int = 3) -> Scorer:
    """Characters."""
    return lambda rows: [float(len(t)) for t in rows["content"].to_pylist()]
'''


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """A new workspace of the default run; the test runs in it."""
    monkeypatch.chdir(tmp_path)
    room = (
        sys.modules["pipeline.scorers"] if "pipeline.scorers" in sys.modules else __import__("pipeline.scorers").scorers
    )
    monkeypatch.setattr(room, "__path__", list(room.__path__))
    assert main(["new", "work"]) == 0
    assert "work is a workspace of stillhouse" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "work")
    forget()
    yield tmp_path / "work"
    forget()


def forget() -> None:
    """Forget what was found in another folder."""
    sys.modules.pop("pipeline.scorers.mine", None)
    for cached in (methods.available, methods.find):
        cached.cache_clear()
    identity.forget()


def test_it_is_whole_and_its_map_is_the_clones_but_for_the_code(workspace: Path) -> None:
    git = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert git.stdout == ""
    assert not (workspace / "pipeline").exists() and not (workspace / "recipes").exists()
    given = load(workspace / "params.yaml")
    ours, theirs = entries(given, shipped.place()), entries(given, workspace)
    assert ours.keys() == theirs.keys()
    for label, entry in ours.items():
        assert theirs[label].cmd == entry.cmd.replace("python -m pipeline", "stillhouse")
        assert theirs[label].outs == entry.outs
    assert {*theirs["plan"].deps} == {*ours["plan"].deps} - {"pipeline"} | {"stillhouse.json", "methods"}
    assert all(theirs[label].deps == entry.deps for label, entry in ours.items() if label != "plan")


def test_its_own_method_is_found_and_its_code_is_identity(workspace: Path) -> None:
    mine = workspace / "methods" / "scorers" / "mine.py"
    mine.parent.mkdir()
    given = load(workspace / "params.yaml")
    given["score"]["length"] = {"of": "responses/train", "use": "mine.length", "least": 5}

    def codes(text: str) -> dict[str, str]:
        mine.write_text(text, "utf-8")
        forget()
        return {label: i.code for label, i in resolve(given).instances.items()}

    before = codes(OWN)
    assert methods.find("scorer", "mine.length").factory.__module__ == "pipeline.scorers.mine"
    assert codes(OWN.replace("Characters", "Letters")) == before
    bytes_before = identity.package(identity.OWN)
    after = codes(OWN.replace("float(len(t))", "float(len(t.split()))"))
    assert {label for label in before if before[label] != after[label]} == {"score@length"}
    assert identity.package(identity.OWN) != bytes_before  # so that what `plan` remembered of code is read anew
    mine.write_text("def length(:\n", "utf-8")
    forget()
    with pytest.raises(Exception, match=r"methods/scorers/mine.py is no Python"):
        resolve(given)


def test_another_package_plans_nothing_until_it_is_pinned(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan"]) == 0
    before = json.loads((workspace / "stillhouse.json").read_text("utf-8"))
    monkeypatch.setattr(pin, "version", lambda name: "9.9")
    capsys.readouterr()
    assert main(["plan"]) == 1
    assert f"pins this workspace to stillhouse {before['version']}, and 9.9 is installed" in capsys.readouterr().err
    assert main(["status"]) == 0
    assert "9.9 is installed" in capsys.readouterr().out

    edited = (workspace / "dvc.yaml").read_text("utf-8") + "# mine\n"
    (workspace / "dvc.yaml").write_text(edited, "utf-8")
    assert main(["upgrade"]) == 1
    assert "dvc.yaml has edits" in capsys.readouterr().err
    assert json.loads((workspace / "stillhouse.json").read_text("utf-8")) == before
    assert main(["upgrade", "--force"]) == 0
    assert "pins stillhouse 9.9; `dvc repro` will make again:" in capsys.readouterr().out
    assert json.loads((workspace / "stillhouse.json").read_text("utf-8")) == before | {"version": "9.9"}
    assert main(["plan"]) == 0


def test_code_that_is_another_is_another_package(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(identity, "package", lambda *more: "other")
    assert main(["plan"]) == 1
    assert "of other code or on another Python" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new", "full"], "full is there and not empty"),
        (["new", "full/file"], "full/file is there and not empty"),
        (["new", "other", "--recipe", "nonsense"], "there is no file nonsense; the recipes are recipes/"),
        (["new", "other", "--recipe", "full/file"], "full/file"),
        (["upgrade"], "there is no stillhouse.json here"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_left(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("a: [", "utf-8")
    assert main(arguments) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_recipe_by_its_name_and_what_it_wants_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()  # empty
    assert main(["new", "work", "--recipe", "own_data"]) == 0
    said = capsys.readouterr().out
    assert "params.yaml wants an edit first" in said and "data/own/prompts.jsonl is missing" in said
    recipe = shipped.place() / "recipes" / "own_data.yaml"
    assert (tmp_path / "work" / "params.yaml").read_bytes() == recipe.read_bytes()
    assert "ingest" in yaml.safe_load(recipe.read_text("utf-8"))
