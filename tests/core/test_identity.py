"""An instance's identity holds what its code says, and nothing of how that is laid out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core import identity
from pipeline.core.stage import STAGES

STAGE = '''"""A stage."""

from pipeline import near
from pipeline.kinds import family
from pipeline.core.run import How


def stage(x: int) -> int:
    """Doubles."""
    return near.twice(x) + family.LIMIT
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A small package; called with a file and a text it writes it, and returns the fingerprint of the stage."""
    files = {
        "stages/work.py": STAGE,
        "near.py": "def twice(x):\n    from pipeline import far\n    return far.ADD + x\n",
        "far.py": "ADD = 1\n",
        "kinds/family.py": "LIMIT = 3\n",
        "kinds/other.py": "LIMIT = 4\n",
        "core/run.py": "from pipeline import far\nclass How: pass\n",
    }
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)

    def fingerprint(name: str = "", text: str = "") -> str:
        for path, content in {**files, **({name: text} if name else {})}.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(content, "utf-8")
        identity.forget()
        return identity.fingerprint(["pipeline.stages.work"])

    # What was read from the real package must not be taken for the small one's, nor the other way round.
    yield fingerprint
    identity.forget()


@pytest.mark.parametrize(
    "text",
    [
        "# Why it doubles.\n" + STAGE,
        STAGE.replace('"""Doubles."""', '"""Gives twice the number."""').replace('"""A stage."""', ""),
        STAGE.replace(
            "near.twice(x) + family.LIMIT", "(\n        near.twice(x)  # first\n        + family.LIMIT\n    )"
        ),
    ],
    ids=["a comment", "docstrings", "layout"],
)
def test_what_changes_nothing_changes_no_identity(package: Callable[..., str], text: str) -> None:
    assert package("stages/work.py", text) == package()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stages/work.py", STAGE.replace("+ family", "- family")),
        ("near.py", "def twice(x):\n    from pipeline import far\n    return far.ADD - x\n"),
        ("far.py", "ADD = 2\n"),
        ("kinds/family.py", "LIMIT = 5\n"),
        ("far.py", 'ADD = "text"\n'),
    ],
    ids=["the stage", "an import", "an import of an import", "a family", "a constant's type"],
)
def test_what_changes_something_changes_the_identity(package: Callable[..., str], name: str, text: str) -> None:
    assert package(name, text) != package()


@pytest.mark.parametrize(
    ("name", "text"),
    [("core/run.py", "class How:\n    workers = 2\n"), ("kinds/other.py", "LIMIT = 5\n")],
    ids=["how it is run", "what it does not import"],
)
def test_other_code_does_not_count(package: Callable[..., str], name: str, text: str) -> None:
    assert package(name, text) == package()


@pytest.mark.parametrize("old", ["near.py", "kinds/family.py"])
def test_a_module_that_moves_changes_no_identity(package: Callable[..., str], tmp_path: Path, old: str) -> None:
    """Whether its name or names in it are imported: what it says is in the closure, wherever it lies."""
    before = package()
    (tmp_path / "rooms").mkdir()
    (tmp_path / "rooms" / "__init__.py").write_text('"""Rooms."""', "utf-8")
    (tmp_path / old).rename(tmp_path / "rooms" / "moved.py")
    moved = STAGE.replace("near.twice", "moved.twice").replace(
        "from pipeline import near", "from pipeline.rooms import moved"
    )
    if old != "near.py":
        moved = STAGE.replace("family.LIMIT", "LIMIT").replace("kinds import family", "rooms.moved import LIMIT")
        (tmp_path / "stages" / "work.py").write_text(
            STAGE.replace("kinds import family", "kinds.family import LIMIT").replace("family.LIMIT", "LIMIT"), "utf-8"
        )
        (tmp_path / "kinds" / "family.py").write_text("LIMIT = 3\n", "utf-8")
        identity.forget()
        before = identity.fingerprint(["pipeline.stages.work"])
        (tmp_path / "kinds" / "family.py").unlink()
    (tmp_path / "stages" / "work.py").write_text(moved, "utf-8")
    identity.forget()
    assert identity.fingerprint(["pipeline.stages.work"]) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import far\n", "import far as near, near as far\n"),
        ("import far\n", "import far\n    from math import floor\n"),
    ],
)
def test_what_a_name_stands_for_counts(package: Callable[..., str], old: str, new: str) -> None:
    """Although nothing else changes where it is used, and both modules are in the closure anyway."""
    text = "def twice(x):\n    from pipeline import far\n    return far.ADD + x\n"
    assert package("near.py", text.replace(old, new)) != package("near.py", text)


def test_a_file_that_a_module_names_counts(package: Callable[..., str], tmp_path: Path) -> None:
    """Such as the template of a page: it says as much of what is written as the code does."""
    names = 'ADD = 1\nPAGE = "pages"\n'
    found = [package("far.py", names)]
    (tmp_path / "pages").mkdir()
    for text in ("<p>one</p>", "<p>two</p>"):
        (tmp_path / "pages" / "page.html").write_text(text, "utf-8")
        found.append(package("far.py", names))
    (tmp_path / "unnamed.html").write_text(text, "utf-8")
    assert package("far.py", names) == found[-1] and len(set(found)) == 3


def test_a_string_that_is_no_docstring_counts(package: Callable[..., str]) -> None:
    one = package("far.py", 'ADD = 1\nNAMES = ["a"]\n')
    assert package("far.py", 'ADD = 1\nNAMES = ["b"]\n') != one


def test_the_closure_is_of_what_is_imported(package: Callable[..., str]) -> None:
    package()
    assert identity.closure(["pipeline.stages.work"]) == [
        "pipeline.far", "pipeline.kinds.family", "pipeline.near", "pipeline.stages.work",
    ]  # fmt: skip


def test_every_stage_stands_on_what_it_does_and_not_on_how_it_is_run() -> None:
    for stage in STAGES:
        closure = identity.closure([f"pipeline.stages.{stage}"])
        names = {name.removeprefix("pipeline.").split(".")[0] for name in closure}
        assert "stages" in names and not names & identity.HOW, stage
    assert {"pipeline.training.loop", "pipeline.kinds.objective", "pipeline.model.load"} <= set(
        identity.closure(["pipeline.stages.train"])
    )


FAMILY = """SHARE = 2
OTHER = 3


def half(x):
    return x / SHARE


def one(x):
    return half(x)


def two(x):
    return x + OTHER
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [("OTHER = 3", "OTHER = 4", False), ("x + OTHER", "x", False), ("def two", "def three", False),
     ("SHARE = 2", "SHARE = 3", True), ("x / SHARE", "x // SHARE", True), ("return half(x)", "return x", True)],
)  # fmt: skip
def test_a_definition_stands_on_what_it_needs_of_its_module(
    package: Callable[..., str], old: str, new: str, counts: bool
) -> None:
    said = []
    for text in (FAMILY, FAMILY.replace(old, new)):
        package("far.py", text)
        said.append(identity.says("pipeline.far", "one"))
    assert (said[0] != said[1]) == counts
