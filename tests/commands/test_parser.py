"""The command line: every command says what it is, a mistake is one message, and no text commands the terminal."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.commands import screen
from pipeline.commands.parser import commands, parser
from pipeline.contracts import RESPONSES
from pipeline.core.methods import KINDS, shipped
from pipeline.memo.ledger import Ledger
from pipeline.plan.map import entries
from pipeline.plan.resolve import load, resolve
from pipeline.tables import parquet
from tests.tables.test_sql import response

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\rred\nnext"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository(place: Path) -> Path:
    """A git repository whose params.yaml is committed, with a recipe that differs from it."""
    for name in ("params.yaml", "dvc.yaml"):
        (place / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    (place / "data").mkdir()
    (place / "data" / "embedded").symlink_to(ROOT / "data" / "embedded")
    (place / "recipes").mkdir()
    recipe = (ROOT / "params.yaml").read_text("utf-8").replace("seed: 17", "seed: 18", 1)
    (place / "recipes" / "other.yaml").write_text(recipe, "utf-8")
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "start")
    return place


def git(place: Path, *command: str) -> None:
    subprocess.run(["git", *command], cwd=place, check=True, capture_output=True)


def answers(place: Path, content: str) -> None:
    rows = [{**response("0a" * 16, "00" * 16), "content": content}]
    parquet.write(RESPONSES, place / "data/responses/train/teacher", 1, [RESPONSES.rows(rows)])


def subcommands() -> argparse._SubParsersAction:
    [found] = [a for a in parser(*commands())._actions if isinstance(a, argparse._SubParsersAction)]
    return found


def test_every_command_and_argument_has_a_help_line() -> None:
    found = subcommands()
    told = {choice.dest: choice.help for choice in found._choices_actions}
    assert told.keys() == found.choices.keys() and all(told.values())
    for command in found.choices.values():
        assert command.description and all(action.help for action in command._actions)
        assert command.format_help()


def test_the_start_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "dvc", "aiohttp", "psutil", "pandas", "scipy", "great_expectations", "prefect")
    code = (
        f"import sys; from pipeline.commands.parser import parser; parser('plan'); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_map_is_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = load(Path("params.yaml"))
    found = entries(given, ROOT)
    instances = {label.removesuffix("@report"): i for label, i in resolve(given).instances.items()}
    assert {*instances, "plan"} == set(found)
    assert {label: (f"data/{i.output}",) for label, i in instances.items()} == {
        label: entry.outs for label, entry in found.items() if label != "plan"
    }
    seen: set[str] = set()
    for label, entry in found.items():
        made = {out for other in seen for out in found[other].outs}
        assert label == "plan" or all(any(d.startswith(o) or o.startswith(d) for o in made) for d in entry.deps), label
        seen.add(label)


@pytest.mark.parametrize(
    "command",
    [
        ["query", "drop table responses"],
        ["query", "select"],
        ["lineage", "nobody"],
        ["results"],
        ["status"],
        ["use", "recipes/none.yaml"],
        ["ask", "nobody", "why?"],
        ["tidy"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_message(command: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) != 0
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"{command[0]}: ") and "Traceback" not in err


@pytest.mark.parametrize("sql", ["select content from responses", "select content::int from responses"])
def test_hostile_text_is_inert(sql: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(place, HOSTILE)
    main(["query", sql])
    for printed in capsys.readouterr():
        assert not set(printed) & set("\x1b\x07\x9b\r")
        assert not [line for line in printed.splitlines() if line.startswith("next")]


def test_json_escapes_and_loses_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(place, HOSTILE + "\x7f")
    assert main(["query", "--json", "select content from responses"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii() and not set(printed) & set("\x1b\x07\x7f\r")
    assert json.loads(printed) == [{"content": HOSTILE + "\x7f"}]


def test_query_aligns_and_counts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(place, "2")
    assert main(["query", "select domain, completion_tokens as n, null as x from responses"]) == 0
    assert capsys.readouterr().out.splitlines() == ["domain  n     x", "------  -  ----", "add     2  null", "(1 rows)"]


def test_query_without_a_text_lists_every_view_and_column(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query"]) == 0
    printed = capsys.readouterr().out
    for word in ("scores_wide", "responses: key response_id", "finish_reason", "ifd("):
        assert word in printed


def test_use_puts_a_recipe_in_place(repository: Path) -> None:
    assert main(["use", "recipes/other.yaml"]) == 0
    assert (repository / "params.yaml").read_bytes() == (repository / "recipes/other.yaml").read_bytes()


def test_use_keeps_what_git_does_not_hold(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = (repository / "params.yaml").read_text("utf-8") + "# mine\n"
    (repository / "params.yaml").write_text(mine, "utf-8")
    assert main(["use", "recipes/other.yaml"]) == 1
    assert "--force" in capsys.readouterr().err
    assert (repository / "params.yaml").read_text("utf-8") == mine
    assert main(["use", "recipes/other.yaml", "--force"]) == 0
    assert (repository / "params.yaml").read_bytes() == (repository / "recipes/other.yaml").read_bytes()


def test_use_refuses_a_wrong_recipe_by_its_name(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (repository / "params.yaml").read_bytes()
    (repository / "recipes" / "wrong.yaml").write_text("ingest: {}\ntrian: {}\n", "utf-8")
    assert main(["use", "recipes/wrong.yaml", "--force"]) == 1
    said = capsys.readouterr().err
    assert "recipes/wrong.yaml has" in said and "did you mean train?" in said
    assert (repository / "params.yaml").read_bytes() == before


def test_methods_lists_every_method_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--markdown"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [name for kind in KINDS for name in shipped(kind)]
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)


def test_memo_counts_forgets_and_learns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(place, "2")
    assert main(["memo", "fill"]) == 0
    assert "1 answers learnt from 1 files" in capsys.readouterr().out
    assert main(["memo", "prune", "--days", "0"]) == 0
    assert "1 answers and readings older than 0 days" in capsys.readouterr().out
    Ledger(place / "data" / ".memo", "teacher", None, None).settle(0, 0.0, 1200, 0.25)
    assert main(["memo", "stats"]) == 0
    said = capsys.readouterr().out
    assert "0 answers, 0 readings" in said
    assert ["teacher", "1200", "0.25"] in [line.split() for line in said.splitlines()]


def test_whoever_reads_may_stop_early(place: Path) -> None:
    command = f"{sys.executable} -m pipeline methods | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_a_table_without_rows_has_its_head() -> None:
    assert screen.table(["a", "bc"], []) == ["a  bc", "-  --"]
