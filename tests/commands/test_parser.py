"""The command line: every command says what it is, a mistake is one message, and no text commands the terminal."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.commands import screen
from pipeline.commands.parser import commands, parser
from pipeline.contracts import RESPONSES
from pipeline.core.methods import KINDS, shipped
from pipeline.memo.ledger import Ledger
from pipeline.memo.memo import Memo
from pipeline.plan.map import entries
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
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


def test_use_tells_which_files_a_recipe_waits_for(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = yaml.safe_load((repository / "recipes/other.yaml").read_text("utf-8"))
    own["ingest"]["tasks"] = {"pool": "train", "use": "files.jsonl", "path": "data/own/prompts.jsonl"}
    own["ingest"]["tasks"] |= {"columns": {"prompt": "q"}}
    (repository / "recipes/own.yaml").write_text(yaml.safe_dump(own), "utf-8")
    assert main(["use", "recipes/own.yaml", "--force"]) == 0
    told = capsys.readouterr().out
    assert "it waits for files of yours" in told and "ingest.tasks: path: data/own/prompts.jsonl is missing" in told
    assert yaml.safe_load((repository / "params.yaml").read_text("utf-8")) == own
    assert main(["check"]) == 1


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


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["ask", "teacher", "why?", "--max-tokens", "-5"], "--max-tokens: must be 1 or more"),
        (["ask", "teacher", "why?", "--max-tokens", "0"], "--max-tokens: must be 1 or more"),
        (["ask", "teacher", "why?", "--max-tokens", "many"], "must be a whole number, not 'many'"),
        (["ask", "teacher", "why?", "--max-tokens", "1e3"], "must be a whole number, not '1e3'"),
        (["ask", "teacher", "why?", "--max-tokens", "9999999999999999999999"], "at most 2147483647"),
        (["ask", "teacher", "why?", "--max-tokens", "\u202e5"], "must be a whole number"),
        (["preview", "--rows", "-1"], "--rows: must be 1 or more"),
        (["estimate", "--rows", "0"], "--rows: must be 1 or more"),
        (["query", "select 1", "--rows", "-50"], "--rows: must be 1 or more"),
        (["memo", "prune", "--days", "-1"], "--days: must be a number of days, 0 to 36,500"),
        (["memo", "prune", "--days", "nan"], "--days: must be a number of days"),
        (["memo", "prune", "--days", "inf", "--yes", "--paid"], "--days: must be a number of days"),
        (["memo", "prune", "--days", "1e99"], "--days: must be a number of days"),
        (["memo", "prune", "--days", "soon"], "--days: must be a number of days"),
    ],
    ids=str,
)
def test_a_number_out_of_bounds_is_a_sentence(
    command: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and says in err and "Traceback" not in err


@pytest.mark.parametrize("command", [[], ["no-such-command"], ["./nothing"], [""], ["/"]], ids=str)
def test_warm_without_a_command_is_a_sentence(
    command: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["warm", *command]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("warm: ") and "dvc repro" in err


UNSEEN = {
    "\u202a": "embedding", "\u202b": "embedding", "\u202c": "pop", "\u202d": "override", "\u202e": "override",
    "\u2066": "isolate", "\u2067": "isolate", "\u2068": "isolate", "\u2069": "pop", "\u200e": "mark",
    "\u200f": "mark", "\u061c": "mark", "\u2028": "line", "\u2029": "paragraph", "\x1b": "escape", "\x9b": "escape",
}  # fmt: skip


@pytest.mark.parametrize("letter", UNSEEN, ids=ascii)
def test_no_text_turns_the_terminal(letter: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(place, f"a{letter}b")
    main(["query", "select content from responses"])
    main(["query", f"select content::int from responses -- {letter}"])
    main(["lineage", f"{letter}x"])
    printed = "".join(capsys.readouterr())
    assert "ab" in printed and letter not in printed


def many(place: Path, n: int) -> None:
    rows = [{**response(f"{i:032x}", "00" * 16), "content": str(i), "sample": i} for i in range(n)]
    parquet.write(RESPONSES, place / "data/responses/train/teacher", 1, [RESPONSES.rows(rows)])


@pytest.mark.parametrize(
    ("rows", "more", "shown", "says"),
    [
        (49, [], 49, "(49 rows)"), (50, [], 50, "(50 rows)"),
        (51, [], 50, "(the first 50 rows; --rows N shows more, --all every one)"),
        (120, [], 50, "(the first 50 rows;"), (120, ["--rows", "119"], 119, "(the first 119 rows;"),
        (120, ["--rows", "120"], 120, "(120 rows)"), (120, ["--rows", "1"], 1, "(the first 1 rows;"),
        (120, ["--all"], 120, "(120 rows)"), (0, [], 0, "(0 rows)"), (0, ["--all"], 0, "(0 rows)"),
        (120, ["--rows", "500"], 120, "(120 rows)"),
    ],
)  # fmt: skip
def test_query_shows_fifty_rows_unless_told(
    rows: int, more: list[str], shown: int, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(place, rows)
    assert main(["query", "select content from responses order by sample", *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(says) and len(lines) == shown + 3
    assert main(["query", "--json", "select content from responses order by sample", *more]) == 0
    out, err = capsys.readouterr()
    # A program that reads JSON gets all, unless it says otherwise; then the cut is told beside it.
    asked = int(more[1]) if "--rows" in more else rows
    assert len(json.loads(out)) == min(asked, rows) and ("the first" in err) is (asked < rows)


def test_the_limits_of_params_hold_for_a_query(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "params.yaml").write_text("run: {query_s: 0.2, query_memory: 300MB}\n", "utf-8")
    assert main(["query", "select sum(sin(range)) from range(1000000000000)"]) == 1
    assert "it needs more than 0.2 s (run.query_s)" in capsys.readouterr().err
    (place / "params.yaml").write_text("run: {query_s: soon}\n", "utf-8")
    assert main(["query", "select 1"]) == 1
    assert "run.query_s: Input should be a valid number" in capsys.readouterr().err


PLANS = [("generate", "done"), ("generate", "runs"), ("evaluate", "judged"), ("evaluate", "judging")]


@pytest.mark.parametrize(
    ("instance", "shown"),
    [
        ("generate@done", 0), ("generate@runs", 1), ("evaluate@judged", 0), ("evaluate@judging", 1),
        ("generate@gone", 0), ("evaluate@gone", 0), ("preview", 0), ("estimate", 0), ("ask@runs", 0), ("", 0),
        ("generate@run", 0), ("probe@runs", 0),
    ],
)  # fmt: skip
def test_pending_is_what_a_stage_without_a_table_has_received(
    instance: str, shown: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, name in PLANS:
        output = f"responses/train/{name}" if stage == "generate" else f"evals/{name}"
        plan = place / "data" / "plan" / stage / f"{name}.json"
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(json.dumps({"stage": stage, "instance": name, "output": output}), "utf-8")
        if name in ("done", "judged"):
            (place / "data" / output).mkdir(parents=True)
    Memo(place / "data" / ".memo").put({"k": {"instance": instance, "prompt_id": "p", "sample": 0, "content": "x"}})
    assert main(["query", "select instance from pending"]) == 0
    assert f"({shown} rows)" in capsys.readouterr().out


def test_memo_counts_forgets_and_learns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(place, "2")
    assert main(["memo", "fill"]) == 0
    assert "1 answers learnt from 1 files" in capsys.readouterr().out
    Memo(place / "data" / ".memo").put({"computed": {"v": 1}}, paid=False)
    assert main(["memo", "prune", "--days", "0"]) == 0
    said = capsys.readouterr().out
    assert "can be computed again" in said and "may have been paid for" in said
    assert "nothing is forgotten yet: add --yes to forget 1 of them" in said and ": 2 answers" in said
    assert main(["memo", "prune", "--days", "0", "--yes"]) == 0
    said = capsys.readouterr().out
    assert "1 answers and readings older than 0 days are forgotten" in said and ": 1 answers" in said
    assert main(["memo", "prune", "--days", "0", "--paid", "--yes"]) == 0
    assert "1 answers and readings older than 0 days are forgotten" in capsys.readouterr().out
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


def test_check_looks_for_the_reporters_that_are_asked_for(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = yaml.safe_load((repository / "params.yaml").read_text("utf-8"))
    params["run"]["reporters"] = ["mlflow"]
    (repository / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["check"]) == 1
    assert "run.reporters names mlflow, which is not installed here" in capsys.readouterr().err


def test_check_says_what_one_process_has_to_do(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = yaml.safe_load((repository / "params.yaml").read_text("utf-8"))
    name = next(iter(params["train"]))
    params["run"]["ranks"] = 2
    params["train"][name]["objectives"] = [{"use": "tokens.entropy"}]
    (repository / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), "utf-8")
    assert main(["check"]) == 0
    told = f"train@{name}: tokens.entropy holds all rows of a step against each other: one process does it, and not"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("named", ["train.nobody", "train@nobody", "generate@nobody", "nobody"])
def test_a_preview_knows_keys_and_labels(named: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", named]) == 1
    section = "train" if named.startswith("train") else "generate"
    assert f"params.yaml has no {section}.nobody; there are: " in capsys.readouterr().err
