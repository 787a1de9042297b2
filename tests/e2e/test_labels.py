"""Labels in a real run: what reads them is made anew when somebody says more, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts import RESPONSES, SCORES
from pipeline.tables.labels import Writer
from pipeline.tables.parquet import Scan
from tests.e2e.conftest import Workspace

pytestmark = pytest.mark.e2e
OF = "responses/train"


def test_a_label_makes_anew_what_reads_it(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "labelled")
    workspace.edit(lambda params: params["score"].update(hand={"of": OF, "use": "label.given"}))
    assert workspace.repro("score@hand", "score@agreement") == ["plan", "score@hand"]
    row = Scan(RESPONSES, (workspace.data / OF / "teacher",)).pylist(["response_id", "prompt_id"])[0]
    Writer(workspace.data).say(row["response_id"], row["prompt_id"], False, "wrong")
    assert workspace.repro("score@hand", "score@agreement") == ["plan", "score@hand"]
    scores = Scan(SCORES, (workspace.data / "scores" / OF / "hand",)).pylist()
    assert [(s["response_id"], s["score"]) for s in scores if s["score"] is not None] == [(row["response_id"], 0.0)]
    assert workspace.repro("score@hand") == []
    assert "data/labels/" in workspace.run("git", "status", "--short", "--untracked-files=all").stdout
