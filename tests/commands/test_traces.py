"""What of DVC's cache goes with a withdrawn row, and what stays; where else to look."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.repo import Repo

from pipeline.commands.stored import Stored, locked
from pipeline.commands.traces import Traces, commands, forget_files, forget_objects
from pipeline.tables.parquet import walk
from tests.commands.test_diff import AFTER, BEFORE, Made

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SCORES = "data/scores/responses/train/agreement"
NOTHING = frozenset[str]()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two commits, and a run of the second's scores that DVC keeps; the workspace holds nothing."""
    made = Made(tmp_path / "repo")
    made.commit("first", BEFORE)
    made.commit("second", AFTER)
    for file in walk(made.root / "data"):
        file.unlink()
    for path in (SCORES, "data/evals/kd"):
        md5 = {path: md5 for outs in locked(made.root).values() for path, md5 in outs.items()}[path]
        run = made.root / ".dvc" / "cache" / "runs" / "ab" / path.replace("/", "_") / "run"
        run.parent.mkdir(parents=True)
        run.write_text(yaml.safe_dump({"cmd": "x", "outs": [{"path": path, "md5": md5}]}), "utf-8")
    return made


def lost(made: Made) -> set[tuple[str, str]]:
    """Commits and paths whose files are not all there any more."""
    stored = Stored(made.root)
    outs = [(name, *out) for name in ("first", "second") for o in locked(made.root, name).values() for out in o.items()]
    return {(name, path) for name, path, md5 in outs if stored.files(path, md5) is None}


def test_tables_with_the_row_go_and_their_runs(made: Made) -> None:
    # It is in the scores of the second commit alone.
    count, freed = forget_objects(made.root, Traces(frozenset({"d"}), NOTHING, NOTHING, NOTHING))
    assert lost(made) == {("second", SCORES)} and count == 2 and freed > 500
    assert [file.parent.name for file in walk(made.root / ".dvc" / "cache" / "runs")] == ["data_evals_kd"]


def test_what_is_no_table_goes_if_the_row_led_to_it(made: Made) -> None:
    forget_objects(made.root, Traces(NOTHING, NOTHING, frozenset({"data/quality/x"}), NOTHING))
    assert lost(made) == {("first", "data/quality/x"), ("second", "data/quality/x")}


def test_other_files_go_by_their_texts(made: Made) -> None:
    made.put("f" * 32, b"<p>A &quot;text&quot; of &lt;somebody&gt;</p>")
    made.put("e" * 32, b"<p>short</p>")
    forget_objects(made.root, Traces(NOTHING, frozenset({'A "text" of <somebody>', "short"}), NOTHING, NOTHING))
    assert lost(made) == set()
    assert not (made.cache / "ff" / ("f" * 30)).exists() and (made.cache / "ee" / ("e" * 30)).exists()


def test_files_beside_the_graph(tmp_path: Path) -> None:
    for name in ("orphans", "quarantine", "runs"):
        (tmp_path / f".{name}").mkdir()
    pq.write_table(pa.table({"response_ids": [["a", "gone"]]}), tmp_path / ".orphans" / "held.parquet")
    pq.write_table(pa.table({"response_ids": [["a"]]}), tmp_path / ".orphans" / "free.parquet")
    (tmp_path / ".quarantine" / "mine.jsonl").write_text('{"raw": "what somebody wrote\\nhere"}', "utf-8")
    (tmp_path / ".runs" / "a.json").write_text('{"notes": "nothing of it"}', "utf-8")
    for name in ("kd", "other"):
        (tmp_path / ".checkpoints" / name).mkdir(parents=True)
    traces = Traces(frozenset({"gone"}), frozenset({"what somebody wrote\nhere"}), NOTHING, frozenset({"train@kd"}))
    gone = {path.relative_to(tmp_path).as_posix() for path in forget_files(tmp_path, traces)}
    assert gone == {".checkpoints/kd", ".orphans/held.parquet", ".quarantine/mine.jsonl"}
    assert not any((tmp_path / name).exists() for name in gone) and (tmp_path / ".checkpoints" / "other").exists()


def test_what_others_keep_is_named_with_a_command(made: Made) -> None:
    with Repo(str(made.root)) as repo, repo.config.edit() as config:
        config["remote"]["there"] = {"url": str(made.root.parent / "there")}
    made.git("update-ref", "refs/exps/one", "HEAD")
    (made.root / "mine.jsonl").write_text("{}\n", "utf-8")
    made.git("add", "mine.jsonl")
    made.git("commit", "-qm", "mine")
    (made.root / "data" / ".prefect").mkdir()
    (made.root / "data" / ".prefect" / "prefect.db").write_bytes(b"\0a text that was logged\0")
    found = Traces(NOTHING, frozenset({"a text that was logged"}), NOTHING, NOTHING)
    told = [line.partition("   #")[0] for line in commands(made.root, {"mine.jsonl:3", "elsewhere.jsonl:1"}, found)]
    assert told == [
        "dvc gc --workspace --cloud --remote there", "dvc exp remove --all", "prefect server database reset",
        "git filter-repo --invert-paths --path mine.jsonl",
    ]  # fmt: skip
