"""Changed data runs again, and nothing else does: `stillhouse status`, `dvc status` and `dvc repro` agree on it."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.brought import stillhouse
from tests.e2e.conftest import Workspace, make_workspace

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

SEED = 9
BROUGHT = ("acquire", "ingest", "curate")


def rows(first: int, count: int) -> list[dict[str, str]]:
    return [{"prompt": f"add {i} and 1", "reference": str(i + 1)} for i in range(first, first + count)]


def lines(first: int, count: int) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows(first, count))


@pytest.fixture(scope="module")
def brought(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace that reads every kind of file and folder, inside `data/own` and outside, and has run once."""

    def change(params: dict[str, Any]) -> None:
        keep = {"seed": 3, "run": {"executor": "inline"}}
        params.clear()
        params.update(keep)
        params["watch"] = {"far": "../far", "linked": "../linked", "one": "../one.jsonl"}
        params["acquire"] = {
            "near": {"use": "local.folder", "path": "data/own/near"},
            "far": {"use": "local.folder", "path": "../far"},
            "shipped": {"use": "local.embedded", "name": "base"},
        }
        pool = {"pool": "train", "verifier": "numeric.last"}
        params["ingest"] = {
            "lines": {**pool, "use": "files.jsonl", "path": "data/own/lines.jsonl"},
            "table": {**pool, "use": "files.parquet", "path": "data/own/table.parquet"},
            "set": {**pool, "use": "hub.datasets", "path": "../linked"},
            "one": {"pool": "bench", "use": "files.jsonl", "path": "../one.jsonl", "verifier": "numeric.last"},
            "made": {"pool": "other", "use": "procedural.tasks", "rows": 40, "seed": 3},
        }
        params["curate"] = {"train": {"against": "bench"}}

    root = tmp_path_factory.mktemp("watched") / "repo"
    workspace = make_workspace(root, env, change)
    own = workspace.data / "own"
    own.mkdir(exist_ok=True)
    (own / "lines.jsonl").write_text(lines(0, 30), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows(100, 30)), own / "table.parquet")
    (root.parent / "set").mkdir()
    (root.parent / "set" / "a.jsonl").write_text(lines(200, 30), "utf-8")
    (root.parent / "linked").symlink_to("set")
    (root.parent / "one.jsonl").write_text(lines(300, 30), "utf-8")
    for place in (own / "near", root.parent / "far"):
        shutil.copytree(workspace.data / "embedded" / "base", place)
    (workspace.data / "watched").mkdir(exist_ok=True)
    workspace.repro(*BROUGHT)
    return workspace


def flip(file: Path) -> None:
    """Change one weight."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def append(file: Path, drawn: random.Random) -> None:
    with file.open("a", encoding="utf-8") as out:
        out.write(lines(drawn.randrange(1000, 100_000), 1))


def rewritten(file: Path, drawn: random.Random) -> None:
    found = pq.read_table(file).to_pylist()
    pq.write_table(pa.Table.from_pylist(found + rows(drawn.randrange(1000, 100_000), 1)), file)


def shard(folder: Path, drawn: random.Random) -> None:
    (folder / f"b{drawn.randrange(10_000)}.jsonl").write_text(lines(drawn.randrange(1000, 100_000), 2), "utf-8")


# What is edited -> how; the instance that reads it (none: its bytes stay as they are).
Edit = Callable[[Workspace, random.Random], None]
WAYS: dict[str, tuple[Edit, str | None]] = {
    "lines appended in data/own": (lambda w, d: append(w.data / "own" / "lines.jsonl", d), "ingest@lines"),
    "a table written anew": (lambda w, d: rewritten(w.data / "own" / "table.parquet", d), "ingest@table"),
    "a file added to a linked folder": (lambda w, d: shard(w.root.parent / "set", d), "ingest@set"),
    "lines appended elsewhere": (lambda w, d: append(w.root.parent / "one.jsonl", d), "ingest@one"),
    "weights in data/own": (lambda w, d: flip(w.data / "own" / "near" / "model.safetensors"), "acquire@near"),
    "weights elsewhere": (lambda w, d: flip(w.root.parent / "far" / "model.safetensors"), "acquire@far"),
    "a file added to a model": (
        lambda w, d: (w.root.parent / "far" / "generation_config.json").write_text(
            json.dumps({"eos_token_id": 2, "top_k": d.randrange(100)}), "utf-8"
        ),
        "acquire@far",
    ),
    "the shipped weights": (lambda w, d: flip(w.data / "embedded" / "base" / "model.safetensors"), "acquire@shipped"),
    "a parameter": (
        lambda w, d: w.edit(lambda params: params["ingest"]["made"].update(seed=d.randrange(1000))),
        "ingest@made",
    ),
    "only the times": (lambda w, d: [f.touch() for f in (w.data / "own").rglob("*") if f.is_file()], None),
    "a table deleted": (lambda w, d: shutil.rmtree(w.data / "prompts" / "other" / "made"), None),
}  # fmt: skip


def standing(workspace: Workspace) -> dict[str, str]:
    """How the instances stand that are brought up to date after each edit; the report, which takes longest, is not."""
    said = json.loads(stillhouse(workspace, "status", "--json"))
    return {label: found["state"] for label, found in said.items() if label != "report"}


def dvc_says_clean(workspace: Workspace) -> bool:
    return json.loads(workspace.dvc("status", "--json").stdout).keys() <= {"report"}


def drawn_kinds(edits: int) -> list[str]:
    """So many kinds of edits, each at least once."""
    drawn = random.Random(SEED)
    kinds = [*WAYS, *drawn.choices(list(WAYS), k=edits - len(WAYS))]
    drawn.shuffle(kinds)
    return kinds


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(
            ["a file added to a linked folder", "weights elsewhere", "only the times", "a table deleted"], id="four"
        ),
        pytest.param(drawn_kinds(20), id="twenty", marks=pytest.mark.long),
    ],
)
def test_every_edit_runs_its_cone_and_all_agree(brought: Workspace, kinds: list[str]) -> None:
    """After each edit, what is said before is what is done."""
    drawn = random.Random(SEED)
    assert standing(brought) == {} and dvc_says_clean(brought)
    below = {"ingest@lines", "ingest@table", "ingest@set", "ingest@one"}
    for kind in kinds:
        edit, reader = WAYS[kind]
        edit(brought, drawn)
        said, clean = standing(brought), dvc_says_clean(brought)
        assert clean == (not said), (kind, said)
        output = brought.dvc("repro", *BROUGHT).stdout
        ran = set(re.findall(r"^Running stage '(\S+)'", output, re.M))
        restored = set(re.findall(r"^Stage '(\S+)' is cached", output, re.M))
        must = {label for label, state in said.items() if state == "must"}
        assert must <= ran | restored, (kind, said, output)
        assert ran | restored <= set(said), (kind, said, output)
        if reader is None:
            assert not ran, (kind, output)
        else:
            assert reader in must, (kind, said)
            cone = {reader, "plan", *(("curate@train",) if reader in below else ())}
            # What the edit before had left undone would be seen here.
            assert {label for label in ran | restored if not label.startswith("watch@")} <= cone, (kind, output)
    assert standing(brought) == {} and dvc_says_clean(brought)
    assert brought.repro() == ["report"]
    assert stillhouse(brought, "status").endswith("instances are up to date\n")


@pytest.mark.long
def test_a_flow_runs_the_same_cone(brought: Workspace, tmp_path: Path) -> None:
    append(brought.data / "own" / "lines.jsonl", random.Random(SEED + 1))
    command = (sys.executable, "-m", "flows.distill", *BROUGHT)
    quiet = {"PREFECT_HOME": str(tmp_path), "PREFECT_LOGGING_LEVEL": "ERROR", "DO_NOT_TRACK": "1"}
    said = brought.run(*command, **quiet).stdout
    ran = re.search(r"(?<!^)\bRan: ([^;\n]*)", said)
    assert ran is not None, said
    assert set(ran[1].split(", ")) == {"plan", "ingest@lines", "curate@train"}
    assert brought.run(*command, **quiet).stdout == "nothing changed\n"
