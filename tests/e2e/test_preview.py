"""Preview and estimate as they are called: what they need is made, and after a run nothing is asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e


def stillhouse(workspace: Workspace, *arguments: str, check: bool = True) -> Any:
    return workspace.run("python", "-m", "pipeline", *arguments, check=check)


def test_after_a_run_all_is_from_memo(done: Workspace) -> None:
    shown = stillhouse(done, "preview", "--rows", "2", "--plain").stdout
    assert "8 to 2 prompts, 8 of them from memo" in shown
    assert "⟦" in shown and "\x1b" not in shown
    found = json.loads(stillhouse(done, "estimate", "--json").stdout)
    assert [(e["label"], e["remaining"], e["probe"]) for e in found["entries"]] == [
        ("generate@teacher", 0, 0),
        ("generate@base", 0, 0),
    ]
    assert found["total"]["hours"]["high"] == 0


def test_before_a_run_only_what_is_asked_about_is_made(
    finished: Workspace, tmp_path: Path, env: dict[str, str]
) -> None:
    finished.run("git", "clone", "-q", ".", str(tmp_path / "repo"))
    clone = Workspace(tmp_path / "repo", env)
    (clone.root / "dvc.lock").unlink()
    found = json.loads(stillhouse(clone, "estimate", "teacher", "--json", "--rows", "4").stdout)
    [entry] = found["entries"]
    assert entry["probe"] == 4
    assert entry["tokens"]["low"] <= entry["tokens"]["value"] <= entry["tokens"]["high"]
    assert not list(clone.data.glob("responses/**/*.parquet"))
    assert set(clone.lock()) == {"plan", "acquire@teacher", "ingest@tasks", "ingest@held_out", "curate@train"}
    refused = stillhouse(clone, "preview", "absent", check=False)
    assert (refused.returncode, "no generate.absent; there are: teacher, base" in refused.stderr) == (1, True)
