"""A preview shows rows end to end, pays for each answer once, and lets no text command the terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.commands.entries import bring_up_to_date, entry_named, pool_asked
from pipeline.commands.preview import _Rendering, before_preview, preview, spread
from pipeline.commands.preview_form import Form
from pipeline.commands.preview_screen import Trained, render
from pipeline.contracts import DROPS, PROMPTS
from pipeline.core.run import How
from pipeline.core.stage import Instance, Plan
from pipeline.errors import Refused
from pipeline.model.chat import Chat
from pipeline.plan.resolve import resolve
from pipeline.stages.generate import generate
from pipeline.stages.pack import Params as PackParams
from pipeline.tables.parquet import Scan
from tests.commands.pool import ROOT, params, prompt, teacher, workspace
from tests.servers import Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def text_of(shown, full: bool = False, color: bool = False) -> str:
    """What a screen of 100 columns shows."""
    out = Console(
        file=io.StringIO(), width=100, markup=False, emoji=False, highlight=False,
        force_terminal=color, color_system="standard" if color else None,
    )  # fmt: skip
    render(shown, out, full)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def block(text: str, word: str) -> str:
    """The part of a screen that is about the row with this word in it."""
    [found] = [part for part in re.split(r"\n\n", text) if word in part and "all of them" not in part]
    return found


ADDITIONS = [(f"add {a:03d} {b:03d}", f"{str(a + b)[::-1]:<04}") for a, b in ((12, 34), (50, 88), (7, 5), (110, 20))]


def test_rows_of_a_local_model_go_through_to_the_tokens_that_are_trained(tmp_path: Path) -> None:
    resolved, data = workspace(params(None), tmp_path, [prompt(question) for question, _ in ADDITIONS])
    shown = preview(resolved, teacher(resolved), data, tmp_path, rows=3)
    assert [len(row.samples) for row in shown.rows] == [2, 2, 2]
    for row in shown.rows:
        trained, first = row.trained, row.samples[0]
        assert isinstance(trained, Trained)
        # The answer and its end token, and nothing of the prompt.
        assert "".join(trained.tokens) == first["content"] + "</s>"
        assert first["messages"][0]["content"] in trained.before
        assert 0 < trained.trained < trained.total
        assert row.scores["agreement"] in (0.5, 1.0)
    text = text_of(shown)
    assert "⟦" + shown.rows[0].samples[0]["content"] + "</s>⟧" in text
    assert "estimate teacher" in text
    again = preview(resolved, teacher(resolved), data, tmp_path, rows=3)
    assert [row.from_memo for row in again.rows] == [2, 2, 2]
    assert [row.samples for row in again.rows] == [row.samples for row in shown.rows]


def test_every_answer_that_is_trained_on_is_marked() -> None:
    """In a preview of answers, and in one of a training on the examples that are packed of them."""
    params = PackParams.model_validate({"of": "responses/p", "by": "s", "student": "base", "answers": "every"})
    form = ROOT / "data" / "embedded"
    entry = Instance("pack", "x", params, {"tokenizer": ("base",)}, "examples/x", "")
    turns = [
        {"role": "user", "content": "add 1 2"}, {"role": "assistant", "content": "#3"},
        {"role": "user", "content": "add 2 2"},
    ]  # fmt: skip
    shown = _Rendering(entry, form).trained({"messages": turns, "content": "#4", "reasoning": None, "inputs": None})
    assert isinstance(shown, Trained)
    assert "⟦#3</s>⟧" in shown.before and "".join(shown.tokens) == "#4</s>" and shown.trained == 6
    rendered = Chat(form / "base").example(turns, "#4", answers="every")
    assert Form(form / "base").trained(rendered.token_ids, rendered.spans, None) == shown


def test_what_a_preview_paid_the_run_does_not_pay(tmp_path: Path, server: Server) -> None:
    resolved, data = workspace(params(server.url), tmp_path, [prompt(f"paid {n}") for n in range(6)])
    before = len(server.stats()["bodies"])
    shown = preview(resolved, teacher(resolved), data, tmp_path, rows=4)
    assert len(server.stats()["bodies"]) - before == 8
    entry = teacher(resolved)
    prompts = Scan(PROMPTS, (data / "prompts/train/own",))
    drops = Scan(DROPS, (data / "drops/train",))
    how = How(resolved.settings, tmp_path, entry.label)
    [batch] = generate.function(entry.params, prompts, drops, data / "models/teacher", how, entry.name)
    assert len(server.stats()["bodies"]) - before == 12
    rows = {row["response_id"]: row for row in batch.to_pylist()}
    assert all(rows[sample["response_id"]] == sample for row in shown.rows for sample in row.samples)


def test_the_screen_says_what_became_of_each_row(tmp_path: Path, server: Server) -> None:
    pool = [
        prompt("good", "a", reference="never this"),
        prompt("finish=length | short", "b"),
        prompt("400 | broken", "c"),
        prompt("reasoning | thought", "d"),
        prompt("plain", "e"),
    ]
    resolved, data = workspace(params(server.url), tmp_path, pool)
    text = text_of(preview(resolved, teacher(resolved), data, tmp_path, rows=10))
    assert re.search(r'read .*"good -> \d+".*wrong.*"never this"', block(text, "never this"))
    assert "not trained on: it was cut off (finish length)" in block(text, "short")
    assert "not trained on: the request failed: HTTP 400" in " ".join(block(text, "broken").split())
    assert "reasoning  I wonder." in block(text, "thought")
    assert "10 tokens asked, 2 tokens answered, $0.000014, asked now" in block(text, "plain")
    summary = " ".join(text[text.index("all of them") :].split())
    assert "right 0 of 2 (0%)" in summary
    assert "cut off 2 of 10" in summary
    assert "failed 2 of 10: HTTP 400" in summary
    assert "training 3 of 5 first answers" in summary
    # Two answers of 14 millionths to each of a thousand prompts.
    assert "$0.03 and 24,000 tokens (k is 2)" in summary


def test_an_answer_to_a_prompt_of_the_entry_is_trained_on_with_the_plain_one(tmp_path: Path) -> None:
    given = params(None)
    given["generate"]["teacher"]["elicit"] = {"template": "mul 003 004\n{prompt}"}
    resolved, data = workspace(given, tmp_path, [prompt(question) for question, _ in ADDITIONS])
    shown = preview(resolved, teacher(resolved), data, tmp_path, rows=3)
    for row in shown.rows:
        [plain], [asked] = row.samples[0]["messages"], row.samples[0]["asked"]
        assert asked["content"] == "mul 003 004\n" + plain["content"]
        assert isinstance(row.trained, Trained)
        assert plain["content"] in row.trained.before and "mul" not in row.trained.before
    again = preview(resolved, teacher(resolved), data, tmp_path, rows=3)
    assert [row.from_memo for row in again.rows] == [2, 2, 2]


def test_a_rule_of_the_selection_that_leaves_a_row_out_is_named(tmp_path: Path, server: Server) -> None:
    given = params(server.url)
    given["select"]["all"]["where"] = "contains(content, 'yes')"
    resolved, data = workspace(given, tmp_path, [prompt("yes"), prompt("no")])
    kept = {row.samples[0]["messages"][0]["content"]: row.trained for row in _rows(resolved, data, tmp_path)}
    assert isinstance(kept["yes"], Trained)
    assert kept["no"] == "select.all wants `contains(content, 'yes')`"


def _rows(resolved: Plan, data: Path, root: Path):
    return preview(resolved, teacher(resolved), data, root, rows=10).rows


def test_a_text_can_neither_command_the_terminal_nor_be_cut_silently(tmp_path: Path, server: Server) -> None:
    pool = [prompt("\x1b[2J\x9b31m [bold]wiped[/bold] :smile:"), prompt("x" * 5000)]
    resolved, data = workspace(params(server.url), tmp_path, pool)
    shown = preview(resolved, teacher(resolved), data, tmp_path, rows=2)
    text = text_of(shown)
    assert not set("\x1b\x9b\x07") & set(text)
    assert "[2J31m [bold]wiped[/bold] :smile:" in text
    assert "[cut: 1200 of 5000 characters are shown; --full shows all]" in " ".join(text.split())
    assert max(map(len, text.split("\n"))) <= 100
    assert "are unknown to its tokenizer" in " ".join(text.split())
    assert "".join(text_of(shown, full=True).split()).count("x" * 5000) >= 2
    colored = text_of(shown, color=True)
    assert "\x1b[2J" not in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == text


def test_the_prompts_are_spread_over_domains_and_the_same_each_time(tmp_path: Path) -> None:
    pool = [prompt(f"{domain} {n}", domain) for domain in ("a", "b", "c") for n in range(5 if domain == "a" else 1)]
    out = str(pool[0]["prompt_id"])
    resolved, data = workspace(params("http://127.0.0.1:9/v1"), tmp_path, pool[::-1], dropped=[out])
    asked = pool_asked(teacher(resolved), data)
    assert out not in asked["prompt_id"].to_pylist()
    domains = spread(asked, 5)["domain"].to_pylist()
    assert domains == ["a", "b", "c", "a", "a"]
    assert spread(asked, 2)["prompt_id"].to_pylist() == spread(asked, 5)["prompt_id"].to_pylist()[:2]
    assert spread(asked, 99).num_rows == 6


def test_only_what_the_entry_and_the_mask_need_is_made_first(tmp_path: Path) -> None:
    resolved = resolve(params("http://127.0.0.1:9/v1"))
    assert set(before_preview(resolved, teacher(resolved), tmp_path)) == {
        "acquire@teacher", "ingest@own", "curate@train", "acquire@base",
    }  # fmt: skip
    with pytest.raises(Refused, match=r"no generate\.absent; there are: teacher"):
        entry_named(resolved, "generate", "absent")


def test_a_model_that_has_to_be_trained_first_is_named(tmp_path: Path) -> None:
    given = params("http://127.0.0.1:9/v1")
    given["quality"]["examples"] = {"of": "examples/all", "suite": "examples"}
    objectives = [{"use": "supervised.cross_entropy"}]
    given["train"]["sft"] = {"of": "examples/all", "student": "base", "epochs": 1, "objectives": objectives}
    given["generate"]["student"] = {"pool": "bench", "model": "sft", "k": 1, "temperature": 1.0}
    given["curate"]["bench"] = {"against": "train"}
    resolved = resolve(given)
    student = resolved.instances["generate@student"]
    with pytest.raises(Refused, match="`dvc repro train@sft` first"):
        before_preview(resolved, student, tmp_path)
    (tmp_path / "models" / "sft").mkdir(parents=True)
    assert "train@sft" not in before_preview(resolved, student, tmp_path)


def test_a_failure_of_what_comes_before_is_shown(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"`dvc repro ingest@own` failed.*(?s:.)*not inside of a DVC repository"):
        bring_up_to_date(["ingest@own"], tmp_path)
