"""Diff: what two commits made, told apart by the rows of their tables."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipeline.commands import diff
from pipeline.commands.stored import Stored, hash_of, locked
from pipeline.contracts import EVALS, EXAMPLES, SCORES, Table
from pipeline.errors import Refused
from pipeline.tables import parquet
from pipeline.tables.parquet import digest, walk

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def score(name: str, value: float) -> dict[str, Any]:
    return {"response_id": name, "prompt_id": name, "score": value, "quantities": {}}


def item(name: str, metric: float) -> dict[str, Any]:
    own = {"task": "bench", "item_id": name, "prompt_id": name, "domain": "add" if name < "f" else "mul"}
    return {**own, "model": "kd", "metric": metric, "measure": "accuracy", "finish_reason": "stop"}


def example(name: str, end: int) -> dict[str, Any]:
    ids = {"example_id": name, "prompt_id": name, "template_hash": "t", "tokenizer_hash": "t", "response_ids": [name]}
    return {**ids, "domain": "add", "token_ids": [1] * 9, "spans": [{"start": 2, "end": end}], "weight": 1.0}


ITEMS = [f"{letter}{n}" for letter in "af" for n in range(20)]
Tables = dict[str, tuple[Table, list[dict[str, Any]]]]
BEFORE: Tables = {
    "scores/responses/train/agreement": (SCORES, [score("a", 0.5), score("b", 1.0), score("c", 0.0)]),
    "examples/all": (EXAMPLES, [example("a", 4), example("b", 5)]),
    "evals/kd": (EVALS, [item(name, float(name < "f")) for name in ITEMS]),
}
AFTER: Tables = {
    "scores/responses/train/agreement": (SCORES, [score("b", 1.0), score("c", 1.0), score("d", 1.0)]),
    "examples/all": (EXAMPLES, [example("a", 9), example("b", 5)]),
    "evals/kd": (EVALS, [item(name, 1.0) for name in ITEMS]),
}


class Made:
    """A repository whose commits have tables, as DVC keeps them."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache = root, root / ".dvc" / "cache" / "files" / "md5"
        root.mkdir()
        self.git("init", "-q")
        Repo.init(str(root)).close()

    def git(self, *command: str) -> str:
        author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
        done = subprocess.run(["git", *author, *command], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self, name: str, tables: Tables, gate: bool = True) -> None:
        outs: dict[str, str] = {}
        shutil.rmtree(self.root / "data", ignore_errors=True)
        for folder, (table, rows) in tables.items():
            parquet.write(table, self.root / "data" / folder, 2, [table.rows(rows)])
            outs[f"data/{folder}"] = self.kept(self.root / "data" / folder)
        quality = self.root / "data" / "quality" / "x"
        quality.mkdir(parents=True)
        (quality / "verdict.json").write_text(json.dumps({"expectations": [{"success": True}, {"success": gate}]}))
        outs["data/quality/x"] = self.kept(quality)
        stages = {path: {"cmd": "x", "outs": [{"path": path, "md5": md5}]} for path, md5 in outs.items()}
        (self.root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}), "utf-8")
        self.git("add", "dvc.lock")
        self.git("commit", "-qm", name)
        self.git("tag", name)

    def kept(self, folder: Path) -> str:
        md5, listing = hash_of(folder), []
        for file in walk(folder):
            listing.append({"md5": digest(file, "md5"), "relpath": file.name})
            self.put(listing[-1]["md5"], file.read_bytes())
        self.put(md5, json.dumps(listing).encode())
        return md5

    def put(self, md5: str, content: bytes) -> None:
        (self.cache / md5[:2]).mkdir(parents=True, exist_ok=True)
        (self.cache / md5[:2] / md5[2:]).write_bytes(content)

    def told(self, a: str, b: str | None = None) -> list[str]:
        return list(diff.told(locked(self.root, a), locked(self.root, b), Stored(self.root)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("diff") / "repo")
    made.commit("first", BEFORE)
    made.commit("second", AFTER, gate=False)
    return made


def cells(lines: list[str], first: str) -> list[str]:
    [line] = [line for line in lines if line.startswith(first)]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_rows_scores_tokens_and_verdicts_are_told(made: Made) -> None:
    lines = made.told("first", "second")
    assert cells(lines, "data/scores")[1:] == ["3", "3", "1", "1", "1", "score", "0.5", "1"]
    assert cells(lines, "data/examples")[1:] == ["2", "2", "0", "0", "1", "spans", "5 trained", "10 trained"]
    assert "verdict  data/quality/x: passed -> stopped" in lines
    judged = {line.split()[1]: line.split() for line in lines if line.startswith("data/evals/kd") and "helps" in line}
    assert judged["all"][2:6] == ["40", "0.500", "1.000", "+0.500"] and judged["mul"][5] == "+1.000"
    [same] = [line for line in lines if line.startswith("data/evals/kd") and " add " in line]
    assert same.endswith("inconclusive")


def test_it_goes_both_ways_and_a_commit_is_itself(made: Made) -> None:
    assert made.told("second", "second") == ["every output that both have is the same"]
    assert made.told("second") == made.told("second", "second")
    back = made.told("second", "first")
    assert "verdict  data/quality/x: stopped -> passed" in back
    assert any(line.endswith("does not help") for line in back)


def test_what_is_not_here_is_named(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.root, tmp_path / "repo")
    for file in walk(tmp_path / "repo" / ".dvc" / "cache"):
        if file.suffix == ".dir":
            file.unlink()
    lines = list(diff.told(locked(tmp_path / "repo", "first"), locked(tmp_path / "repo"), Stored(tmp_path / "repo")))
    assert lines[-1].startswith("not here, so not looked at: data/evals/kd, data/examples/all, data/quality/x")


def test_an_unknown_commit_is_refused(made: Made) -> None:
    with pytest.raises(Refused, match=r"there is no dvc\.lock in the commit nowhere"):
        locked(made.root, "nowhere")
