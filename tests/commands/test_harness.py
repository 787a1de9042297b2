"""The harness's own code judges a model of ours, where it is installed; where it is not, that is said."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from pipeline.commands import harness
from pipeline.core.methods import find
from pipeline.errors import Refused

TASK = """
task: stillhouse_sums
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_gen_toks: 8, until: ["\\n"], do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    card = find("origin", "local.embedded").factory(name="base")(folder)
    (folder / "model.json").write_text(json.dumps(card), "utf-8")
    return folder


def test_without_the_harness_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else there(name))
    with pytest.raises(Refused, match=r"pip install 'stillhouse\[harness\]'"):
        harness.results(folder, ["arc_easy"], None, None)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval, the extra `harness`")
@pytest.mark.filterwarnings("default")
def test_a_task_of_ones_own_is_judged_by_the_harness(folder: Path, tmp_path: Path) -> None:
    rows = [{"question": f"add {i} 1", "answer": str(i + 1)} for i in range(4)]
    (tmp_path / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "tasks").mkdir()
    task = TASK.replace("FILE", str(tmp_path / "rows.json"))
    (tmp_path / "tasks" / "sums.yaml").write_text(task, "utf-8")
    found = harness.results(folder, ["stillhouse_sums"], 3, tmp_path / "tasks")
    assert found["n-samples"]["stillhouse_sums"] == {"original": 4, "effective": 3}
    assert 0 <= found["results"]["stillhouse_sums"]["exact_match,none"] <= 1
    with pytest.raises(Refused, match="knows no task nothing"):
        harness.results(folder, ["nothing"], None, None)
