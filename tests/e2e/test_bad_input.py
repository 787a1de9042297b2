"""What a user gives wrong: one clear message without a traceback, nothing else touched, and the next run goes on.

Where each case is tested:

- unknown key, wrong type, unknown method, a name that is no word, missing file, a rule that is not one SELECT:
  `core/test_plan.py`; that nothing but `plan` is touched by it: `test_graph.py`
- empty file, broken line, non-UTF-8, duplicate ids, empty prompt, reference that its verifier cannot read, damaged
  Parquet of the user's: `stages/test_ingest.py`; here that the graph stops there and goes on
- a prompt of 100,000 characters; a teacher without tokenizer or template; another vocabulary; a disk that is full; a
  part cut by hand: here
- an endpoint that is down and a key that shows nowhere: here through the graph, `core/test_http_backend.py` in detail
- a rule that reads a file, or does anything else: `core/test_sql.py`
- a killed stage: `test_kill.py`; a full disk under the memo: `core/test_memo.py`
- answers with scripts, remote images and escape codes: `test_report_browser.py`, `test_data_docs_browser.py`,
  `stages/test_report.py`, `stages/test_quality.py`, `core/test_commands.py`
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.contracts import RESPONSES
from pipeline.errors import Refused
from pipeline.origins.local import folder
from pipeline.tables.parquet import Scan, folder_digest
from tests.e2e.conftest import ROOT, Workspace
from tests.servers import serving

pytestmark = pytest.mark.e2e
KEY = "sentinel-5f0e7c1b"
TASKS = [
    f"{word} {a:03} {b:03}" for word in ("add", "mul") for a, b in zip(range(120, 129), range(341, 350), strict=True)
]


def refused(done: Workspace, *command: str, **extra: str) -> str:
    """What a command says that must fail, without a traceback and without touching what is there."""
    tables = {path: folder_digest(done.root / path) for path in done.hashes() if path != "data/plan"}
    failed = done.run(*command, check=False, **extra)
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    assert {path: folder_digest(done.root / path) for path in tables} == tables
    return failed.stderr


def stage(done: Workspace, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pipeline", *arguments)


def own_prompts(**section: object) -> Callable[[dict], None]:
    """An entry that reads mine.jsonl into a pool of its own, and one that answers it."""

    def change(params: dict) -> None:
        params["ingest"]["mine"] = {"pool": "mine", "use": "files.jsonl", "path": "data/own/mine.jsonl"}
        params["curate"]["mine"] = {"against": "bench"}
        params["generate"]["mine"] = {"pool": "mine", "model": "teacher", "k": 1, "temperature": 0.0, **section}

    return change


def test_a_broken_row_and_an_endless_prompt(done: Workspace) -> None:
    lines = [json.dumps({"prompt": text}) for text in TASKS]
    lines[16] = '{"prompt": "add'
    lines.append(json.dumps({"prompt": "a" * 100_000}))
    (done.data / "own" / "mine.jsonl").write_text("\n".join(lines), "utf-8")
    done.edit(own_prompts())
    said = refused(done, "dvc", "repro")
    assert "ingest.mine: 1 of 19 rows cannot be used" in said
    assert "is not JSON" in said and "mine.jsonl:17" in said and "on_bad_row: quarantine" in said

    done.edit(lambda p: p["ingest"]["mine"].update(on_bad_row="quarantine"))
    said = refused(done, "dvc", "repro", "generate@mine")
    record = json.loads((done.data / ".runs" / "ingest" / "mine.json").read_text("utf-8"))
    assert (record["rows"], sum(record["notes"]["quarantined"].values())) == (18, 1)
    assert "1 of 18 requests failed, more than max_failure_rate 0.0" in said
    assert "leaves no room to answer" in said

    done.edit(lambda p: p["generate"]["mine"].update(max_failure_rate=0.1))
    assert done.repro("generate@mine") == ["plan", "generate@mine"]
    answers = Scan(RESPONSES, (done.data / "responses" / "mine" / "mine",)).read()
    assert answers["finish_reason"].to_pylist().count("error") == 1


def test_an_endpoint_that_is_down_and_a_key_that_shows_nowhere(done: Workspace) -> None:
    with serving() as gone:
        pass
    rows = [{"prompt": text} for text in ("one", "two", "three")]
    (done.data / "own" / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    done.edit(own_prompts(model="served"))

    def serve(params: dict) -> None:
        params["acquire"]["served"] = {"use": "remote.endpoint", "model": "tiny", "version": "1"}
        params["run"]["endpoints"] = {"served": {"url": gone.url, "api_key_env": "SENTINEL_KEY", "retries": 0}}

    done.edit(serve)
    heard = [refused(done, "dvc", "repro", "generate@mine", SENTINEL_KEY=KEY)]
    assert gone.url in heard[0] and "Start it" in heard[0]
    with serving(gone.port) as server:
        ran = done.dvc("repro", SENTINEL_KEY=KEY)
        assert len(server.stats()["bodies"]) == 3
    heard += [ran.stdout, ran.stderr]
    assert "Running stage 'generate@mine'" in ran.stdout and "Running stage 'report'" in ran.stdout

    assert not [text for text in heard if KEY in text]
    files = [path for path in done.root.rglob("*") if path.is_file()]
    assert done.data / ".memo" / "requests.sqlite" in files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    parts = [path for path in files if path.suffix == ".parquet"]
    assert len(parts) > 30
    assert [path for path in parts if KEY in str(pq.ParquetFile(path).read().to_pylist())] == []


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "pickles are not read"),
        ("tokenizer.json", "no tokenizer.json; save its fast tokenizer"),
        ("chat_template.jinja", "no chat template; put a chat_template.jinja"),
    ],
)
def test_a_teacher_that_lacks_a_file_is_refused(tmp_path: Path, lost: str, says: str) -> None:
    brought = tmp_path / "brought"
    shutil.copytree(ROOT / "data" / "embedded" / "teacher", brought, copy_function=shutil.copyfile)
    (brought / lost).unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match=says) as refusal:
        folder(path=str(brought))(tmp_path / "out")
    assert str(brought) in str(refusal.value)


def test_a_student_of_another_vocabulary(done: Workspace) -> None:
    """The tokens of a student that counts otherwise cannot be compared with the teacher's."""
    other = done.data / "own" / "other"
    shutil.copytree(done.data / "embedded" / "base", other)
    tokenizer = json.loads((other / "tokenizer.json").read_text("utf-8"))
    numbers = tokenizer["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")

    def change(params: dict) -> None:
        params["acquire"]["other"] = {"use": "local.folder", "path": "data/own/other"}
        params["pack"]["other"] = {**params["pack"]["random"], "student": "other"}
        params["probe"]["other"] = {**params["probe"]["teacher"], "of": "other"}
        params["train"]["kd"]["student"] = "other"

    done.edit(change)
    before = folder_digest(done.data / "models" / "random_sft")
    failed = done.dvc("repro", "--keep-going", "probe@other", "train@kd", check=False)
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    assert "examples/other was cut with tokenizer" in failed.stderr
    assert "train this student with supervised.cross_entropy instead" in failed.stderr
    assert re.search(r"was cut with another tokenizer \(\w{8}\) than the student's", failed.stderr)
    assert folder_digest(done.data / "models" / "random_sft") == before


def test_a_part_that_was_cut_by_hand(done: Workspace) -> None:
    before, folder = done.hashes(), done.data / "responses" / "train" / "teacher"
    part = folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    said = refused(done, *stage(done, "score", "agreement"))
    assert f"{part.relative_to(done.root)} cannot be read as Parquet" in said and "run `dvc repro` again" in said
    done.repro("score@agreement")
    assert done.dvc("status", "--json", "generate@teacher").stdout.strip() == "{}"
    assert done.hashes() == before


def test_a_disk_that_is_full(done: Workspace, clean_env: dict[str, str]) -> None:
    """A limit on the size of a file stands for it; stages of the warm parent would not feel it."""
    alone = Workspace(done.root, {**clean_env, "PYTHONDONTWRITEBYTECODE": "1"})
    command = " ".join(stage(done, "ingest", "tasks"))
    said = refused(alone, "bash", "-c", f"ulimit -f 4 && exec {command}")
    assert "ingest@tasks: there is no room to write its output" in said
    assert done.repro() == []
