"""A row that is withdrawn is gone: from tables, memo, checkpoints, orphans and DVC's caches, by their bytes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contracts import PROMPTS
from pipeline.tables.parquet import Scan
from tests.e2e.brought import stillhouse
from tests.e2e.conftest import BIN, Workspace, make_workspace

pytestmark = [pytest.mark.e2e, pytest.mark.long]

# A word that stands in nothing else, also in answers that repeat some of a prompt's words.
WORD = "zyzzyxquor"
OWN = Path("data/own/prompts.jsonl")
ROWS = 24
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;?!'\"+-=()/\n"


def change(params: dict[str, Any]) -> None:
    """Prompts of a file, answered twice; questions about the answers; a student of a few thousand parameters."""
    params.clear()
    shape = {"width": 8, "layers": 1, "heads": 1, "context": 256}
    ask = {"model": "teacher", "temperature": 1.0}
    pool = {"use": "files.jsonl", "columns": {"prompt": "question"}}
    params |= {
        "run": {"executor": "inline"},
        "seed": 3,
        "acquire": {
            "teacher": {"use": "fake.words", "licence": "Apache-2.0"},
            "base": {"use": "fresh.gpt2", "alphabet": LETTERS, "prompt_width": 0, "seed": 1, **shape},
        },
        "ingest": {
            "mine": {"pool": "train", **pool, "path": str(OWN), "parts": 2, "licence": "CC0-1.0"},
            "bench": {"pool": "bench", **pool, "path": "data/own/bench.jsonl"},
        },
        "curate": {"train": {"against": "bench"}, "checks": {"against": "bench"}},
        "derive": {"asks": {"of": "train", "pool": "checks", "against": "bench", "use": "questions.points"}},
        "generate": {"teacher": {"pool": "train", "k": 2, **ask}, "checks": {"pool": "checks", "k": 1, **ask}},
        "score": {"format": {"of": "responses/train", "use": "heuristic.format"}},
        "judge": {"points": {"of": "responses/train", "by": "checks", "use": "verdicts.points"}},
        "quality": {
            "answers": {"of": "responses/train", "suite": "responses"},
            "examples": {"of": "examples/all", "suite": "examples"},
        },
        "select": {"all": {"of": "responses/train", "use": "sampling.random", "budget_rows": ROWS}},
        "pack": {"all": {"of": "responses/train", "by": "all", "student": "base"}},
        "train": {
            "student": {
                "of": "examples/all", "student": "base", "epochs": 1, "batch_rows": 8,
                "objectives": [{"use": "supervised.cross_entropy"}],
            }
        },
        "evaluate": {"student": {"model": "student", "pool": "bench", "max_tokens": 4}},
        "export": {
            "rows": {"of": "responses/train", "by": "selections/responses/train/all", "use": "axolotl.chat"},
            "student": {"of": "models/student", "by": "evals/student", "use": "hub.model"},
        },
    }  # fmt: skip


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from texts(inner)


def holding(root: Path, word: str) -> list[str]:
    """All files below a folder that hold a word: by their bytes, and of tables by all their texts."""
    found = []
    for file in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        content = file.read_bytes()
        if content.startswith(b"PAR1"):
            rows: pa.Table = pq.ParquetFile(file).read()
            held = any(word in text for row in rows.to_pylist() for text in texts(row))
        else:
            held = word.encode() in content
        if held:
            found.append(file.relative_to(root).as_posix())
    return found


@pytest.fixture(scope="module")
def ran(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that ran with one seed and then with another, and has orphans of an entry that is gone."""
    workspace = make_workspace(tmp_path_factory.mktemp("withdraw") / "repo", env, change)
    own = workspace.data / "own"
    own.mkdir(exist_ok=True)
    rows = [{"question": f"what is said of number {n} and its friend?"} for n in range(ROWS)]
    rows[7] = {"question": f"who is {WORD}, and where does he live?"}
    (workspace.root / OWN).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (own / "bench.jsonl").write_text('{"question": "who are you?"}\n', "utf-8")
    old = {"pool": "train", "model": "teacher", "k": 1, "temperature": 1.0, "seed": 9}
    workspace.edit(lambda p: p["generate"].update(old=old))
    for seed, stages in ((3, ("derive@asks", "pack@all", "generate@old")), (4, ())):
        workspace.edit(lambda p, seed=seed: p.update(seed=seed))
        workspace.repro(*stages)
        workspace.run("git", "add", "-A")
        workspace.run("git", "commit", "-qm", f"seed {seed}")
        workspace.edit(lambda p: p["generate"].pop("old", None))
    return workspace


def withdraw(workspace: Workspace, wanted: str) -> str:
    return stillhouse(workspace, "lineage", "--withdraw", wanted)


def test_a_prompt_is_gone_from_every_byte(ran: Workspace, tmp_path: Path) -> None:
    here = ran.copy(tmp_path / "repo")
    held = holding(here.root, WORD)
    for place in (
        "data/prompts/train/mine/", "data/prompts/checks/asks/", "data/responses/train/teacher/", "data/.orphans/",
        "data/exports/rows/train.jsonl", "data/.memo/requests.sqlite", ".dvc/cache/files/md5/",
    ):  # fmt: skip
        assert any(name.startswith(place) for name in held), (place, held)
    [row] = [r for r in Scan(PROMPTS, (here.data / "prompts/train/mine",)).pylist() if WORD in str(r["messages"])]
    before = weights(here)
    assert before
    said = withdraw(here, row["prompt_id"][:8])
    assert f"what they were read from is yours to delete: {OWN}:8" in said
    assert "still in data/" in said and "train@student" in said and "0 answers that the memo does not hold" in said
    beside = [name for name in holding(here.root, WORD) if not name.startswith("data/") or name.startswith("data/.")]
    assert beside == []

    asked = answers(here)
    here.repro()
    # The file still has it; the rule keeps it out.
    assert holding(here.root, WORD) == [str(OWN)]
    prompts = Scan(PROMPTS, (here.data / "prompts/train/mine",)).pylist()
    assert len(prompts) == ROWS - 1 and row["prompt_id"] not in {r["prompt_id"] for r in prompts}
    assert answers(here) - asked <= 2, "others were asked again"
    assert not before & weights(here), "a student that had learnt it is still in the cache"

    lines = (here.root / OWN).read_text("utf-8").splitlines(keepends=True)
    (here.root / OWN).write_text("".join(lines[:7] + lines[8:]), "utf-8")
    here.repro()
    assert holding(here.root, WORD) == []
    assert "no table holds it any more" in withdraw(here, row["prompt_id"])
    assert here.repro() == []


def answers(workspace: Workspace) -> int:
    """How many answers the memo holds."""
    with closing(sqlite3.connect(workspace.data / ".memo" / "requests.sqlite")) as memo:
        return memo.execute("SELECT count(*) FROM memo").fetchone()[0]


def weights(workspace: Workspace) -> set[str]:
    """Names of the objects of DVC's cache that are weights of the student, which has been trained."""
    base = (workspace.data / "models/base/model.safetensors").read_bytes()
    objects = (workspace.root / ".dvc/cache/files/md5").rglob("*")
    contents = {file.name: file.read_bytes() for file in objects if file.is_file()}
    return {name for name, content in contents.items() if len(content) == len(base) and content != base}


def test_all_of_a_source(ran: Workspace, tmp_path: Path) -> None:
    here = ran.copy(tmp_path / "repo")
    command = (str(BIN / "python"), "-m", "pipeline", "lineage", "--withdraw", "data/own/nothing.jsonl")
    done = here.run(*command, check=False)
    assert done.returncode == 1 and "no prompt has the id or the source" in done.stderr
    said = withdraw(here, "data/own/prompts.jsonl:8")
    assert "data/prompts/train/mine" in said.partition("still in ")[2]
    assert json.loads((here.data / "withdrawn" / "rules.json").read_text("utf-8"))["sources"] == [f"{OWN}:8"]
    here.repro("ingest@mine")
    assert len(Scan(PROMPTS, (here.data / "prompts/train/mine",)).pylist()) == ROWS - 1
