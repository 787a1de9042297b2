"""The pages of `stillhouse view`: who may see them, what they tell of a row, and that what a model wrote is text."""

from __future__ import annotations

import base64
import html
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from pipeline.__main__ import main
from pipeline.contracts import PROMPTS, RESPONSES
from pipeline.core.settings import RunSettings
from pipeline.laws.scorer import responses
from pipeline.tables import parquet
from pipeline.tables.labels import Writer, labels_of
from pipeline.tables.parquet import Scan
from pipeline.tables.pictures import pixels
from pipeline.tables.rules import query
from pipeline.tables.sql import VIEWS
from pipeline.tables.tensors import cell
from pipeline.viewing import tokens
from pipeline.viewing.app import app
from pipeline.viewing.tables import Tables
from tests.stages.report_data import HOSTILE
from tests.viewing import made

ROOT = Path(__file__).parents[2]
TOKEN = "a-token"
# What starlette's client says on its own account, in another version than it asks for.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("view")
    made.build(place)
    return place


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with TestClient(app(root, TOKEN, frozenset({"testserver"}), RunSettings())) as opened:
        yield opened


def page(client: TestClient, path: str = "", status: int = 200, **query: str) -> str:
    """A page as HTML."""
    reply = client.get(f"/{TOKEN}/{path}", params=query)
    assert reply.status_code == status, reply.text
    return reply.text


def said(text: str) -> str:
    """What a page says, without its tags."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))


def ids_of(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"/row/([0-9a-f]{32})", text)))


# Who may see it.


@pytest.mark.parametrize(
    "path", ["/", "/other/", "/a-toke/", "/a-token2/", "/a-token2/label", "/docs", "/openapi.json"]
)
def test_without_the_token_nothing_is_told(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 403 and "open the address that `stillhouse view` printed" in reply.text


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"host": "testserver:99"}, {"origin": "http://evil.example"}]
)
def test_another_name_or_another_page_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    for reply in (client.get(f"/{TOKEN}/", headers=headers), client.post(f"/{TOKEN}/label", headers=headers)):
        assert reply.status_code == 403 and "answers only to the address" in reply.text


def test_every_answer_forbids_scripts_and_frames(client: TestClient) -> None:
    for path in ("/", f"/{TOKEN}/", f"/{TOKEN}/nothing", f"/{TOKEN}/style.css", f"/{TOKEN}/row/zz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';") and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and headers["cache-control"] == "no-store"


# Browsing.


def test_a_filter_an_order_and_pages(client: TestClient, root: Path) -> None:
    wanted = (
        "SELECT response_id FROM responses WHERE entry = 'teacher' AND sample < 3 ORDER BY answer DESC, response_id"
    )
    expected = query(root / "data", wanted)["response_id"].to_pylist()
    assert len(expected) == 180
    seen = []
    for number in range(4):
        given = {"where": "entry = 'teacher' AND sample < 3 -- mine", "order": "answer", "down": "true"}
        text = page(client, page=str(number), **given)
        assert "180" in said(text) and f"page {number + 1} of 4" in said(text)
        table = text[text.index("<tbody>") :]
        seen += re.findall(r'<td><a href="/a-token/row/([0-9a-f]{32})"', table)[::2]
    assert seen == expected
    assert "There is no page 5" in said(page(client, page="4", where="entry = 'teacher' AND sample < 3"))
    assert "No row is so" in said(page(client, where="entry = 'nobody'"))


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_browsed(client: TestClient, view: str) -> None:
    assert f"<h1>{view}</h1>" in page(client, view=view)


BAD = {
    "no column": ({"where": "anser = 3"}, "Did you mean"),
    "no SQL": ({"where": "entry ="}, "syntax error"),
    "a bracket": ({"where": "true) OR (true"}, "closes a bracket"),
    "a statement": ({"where": "true; DROP VIEW responses"}, "syntax error"),
    "a file": ({"where": "entry IN (SELECT content FROM read_text('/etc/passwd'))"}, "not allowed after FROM"),
    "another view": ({"where": "entry IN (SELECT 1 FROM duckdb_tables)"}, "there is no view"),
    "no view": ({"view": "respones"}, "did you mean responses?"),
    "a view of its own": ({"view": "responses; DROP"}, "there is no view"),
    "no order": ({"order": "anser"}, "did you mean answer?"),
    "an order of its own": ({"order": "1; DROP"}, "has no column"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_is_said_in_the_page(client: TestClient, case: str) -> None:
    given, why = BAD[case]
    text = page(client, status=400, **given)
    alert = re.search(r'role="alert">(.*?)</p>', text, re.S)
    assert alert is not None and why.lower() in html.unescape(alert[1]).lower()


def test_a_filter_that_takes_too_long_is_ended_and_the_next_one_answers(root: Path) -> None:
    limits = RunSettings(query_s=1)
    with TestClient(app(root, TOKEN, frozenset({"testserver"}), limits)) as client:
        endless = "1 < (SELECT count(*) FROM range(1000000000000) a WHERE a.range % 7 = length(content))"
        assert "needs more than 1 s (run.query_s)" in said(page(client, status=400, where=endless))
        assert "<h1>prompts</h1>" in page(client, view="prompts")


# A row.


def test_an_answer_is_told_whole(client: TestClient, root: Path) -> None:
    example = made.kept(root / "data")
    [key] = example["response_ids"]
    text = said(page(client, f"row/{key}"))
    for told in (
        "kept , weight 1 by selections/responses/train/coverage", "mixture.coverage", "agreement.score >= 0.5",
        "votes / samples", "consistency.agreement", "loss weight 1", "3 of 8 tokens are learnt",
        "Trained on it: models/coverage_sft , models/kd", "Nobody has labelled it", "All answers to this prompt",
        "stopped at gate@answers, which checks responses/train; errors", "passed at gate@coverage_examples",
    ):  # fmt: skip
        assert told in text, told
    assert len(ids_of(page(client, f"row/{key}"))) == 1 + 6  # its prompt, and the answers to it


def test_why_an_answer_was_not_kept_and_its_prompt_dropped(client: TestClient, root: Path) -> None:
    [row] = query(root / "data", "SELECT prompt_id FROM drops WHERE rule = 'exact'").to_pylist()
    asked = f"SELECT response_id FROM selections WHERE prompt_id = '{row['prompt_id']}' AND reason = 'other_entry'"
    key = query(root / "data", asked)["response_id"][0].as_py()
    text = said(page(client, f"row/{key}"))
    assert "not kept by selections/responses/train/coverage : of an entry that it does not choose from" in text
    assert "dropped by the rule exact of drops/train" in text
    assert "No example was made of it" in text


def test_tokens_are_shaded_by_who_was_asked(client: TestClient, root: Path) -> None:
    data = root / "data"
    example = made.kept(data)
    address = f"row/{example['response_ids'][0]}"
    text = page(client, address)
    assert re.findall(r'class="t p(\d)"', text.partition("<b>teacher</b>")[2].partition("</p></div>")[0]) == [
        "0",
        "3",
        "6",
    ]
    assert "Ask base, coverage_sft, kd" in said(text)
    assert len(re.findall(r'class="t learnt"', text)) == 3
    made.remember(data, "base", example, [-3.0, -3.0, -3.0])
    text = page(client, address)
    assert "student before -3.000 nats a token" in said(text)
    assert re.findall(r'class="t p(\d)"', text.partition("<b>base</b>")[2].partition("</p></div>")[0]) == ["5"] * 3


def test_students_are_asked_on_demand_and_remembered(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without loading a model: what would be asked is what is shown afterwards."""
    data = root / "data"
    example = made.kept(data)
    asked: list[str] = []

    def read(models: dict[str, Path], given: tokens.Tokens, settings: RunSettings, root: Path) -> None:
        asked.extend(models)
        for name in models:
            made.remember(data, name, example, [-0.5, -0.5, -0.5])

    monkeypatch.setattr(tokens, "read", read)
    key = example["response_ids"][0]
    reply = client.post(f"/{TOKEN}/row/{key}/read", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, f"/{TOKEN}/row/{key}#trained")
    assert {"coverage_sft", "kd"} <= {*asked}
    text = said(page(client, f"row/{key}"))
    assert "student after -0.500 nats a token" in text and "Ask " not in text


def test_a_model_is_really_asked(tmp_path: Path) -> None:
    made.model(tmp_path / "data" / "models" / "base")
    models, asked = {"base": tmp_path / "data" / "models" / "base"}, tokens.Tokens("e", [5, 6, 7, 8], [2, 3])
    assert tokens.known(models, asked, tmp_path / "data" / ".memo") == {}
    tokens.read(models, asked, RunSettings(), tmp_path)
    found = tokens.known(models, asked, tmp_path / "data" / ".memo")
    assert len(found["base"]) == 2 and max(found["base"]) < 0


def test_a_prompt_has_its_answers_and_an_item_its_verdicts(client: TestClient, root: Path) -> None:
    prompt = query(root / "data", "SELECT prompt_id FROM prompts WHERE of = 'train' ORDER BY 1")["prompt_id"][1].as_py()
    assert len(ids_of(page(client, f"row/{prompt}"))) == 1 + 6
    item = query(root / "data", "SELECT prompt_id FROM prompts WHERE of = 'bench'")["prompt_id"][0].as_py()
    text = said(page(client, f"row/{item[:10]}"))
    assert "As an item of a benchmark" in text and "coverage_sft bench" in text


@pytest.mark.parametrize("key", ["zz", "../etc", "00000000", "abc", "' OR 1=1"])
def test_an_id_that_is_none_is_refused(client: TestClient, key: str) -> None:
    reply = client.get(f"/{TOKEN}/row/{key}")
    assert reply.status_code in (400, 404)


# Lineage, both ways.


def test_lineage_leads_both_ways(client: TestClient) -> None:
    def links(folder: str, part: str) -> set[str]:
        text = page(client, f"instance/{folder}")
        above, _, below = text.partition("<h2>Read by</h2>")
        return set(re.findall(r'/instance/([^"]+)"', above if part == "above" else below.partition("<h2>")[0]))

    assert {"signals/coverage/teacher", "prompts/train/tasks", "models/base"} <= links("models/kd", "above")
    assert links("models/kd", "below") == {"evals/kd"}
    assert {"models/coverage_sft", "signals/coverage/teacher"} <= links("examples/coverage", "below")
    assert "responses/train/teacher" in links("prompts/train/tasks", "below")
    rows = re.search(r'href="([^"]+)">its rows', page(client, "instance/responses/train/base"))
    assert rows is not None
    assert "120" in said(client.get(html.unescape(rows[1])).text)


def test_an_instance_that_is_not_there_is_refused(client: TestClient) -> None:
    assert "no instance of the plan writes" in said(page(client, "instance/models/nobody", 400))


# Side by side.


def test_won_and_lost_are_the_items_in_which_two_models_differ(client: TestClient, root: Path) -> None:
    pair = (
        "FROM evals a JOIN evals b USING (task, item_id) WHERE a.instance = 'kd' AND b.instance = 'base' AND "
        "a.metric {} b.metric"
    )
    for outcome, sign in (("won", ">"), ("lost", "<")):
        expected = query(root / "data", f"SELECT item_id {pair.format(sign)} ORDER BY 1")["item_id"].to_pylist()
        text = page(client, "compare", task="bench", first="kd", second="base", outcome=outcome)
        assert f"{outcome} {len(expected)}" in said(text)
        assert [key for key in ids_of(text) if key in expected] == expected[:20]
        assert len(re.findall(r'<div class="two">', text)) == min(20, len(expected))


@pytest.mark.parametrize("given", [{"task": "x"}, {"first": "x"}, {"second": "kd2"}, {"outcome": "best"}])
def test_what_cannot_be_compared_is_said(client: TestClient, given: dict[str, str]) -> None:
    assert "there is no" in said(page(client, "compare", 400, **given))


# Labels.


def test_a_label_is_kept_shown_and_taken_back(client: TestClient, root: Path) -> None:
    data = root / "data"
    key = query(data, "SELECT response_id FROM responses ORDER BY 1")["response_id"][3].as_py()

    def say(word: str, note: str = "") -> str:
        reply = client.post(f"/{TOKEN}/label", data={"response_id": key, "said": word, "note": note})
        assert reply.status_code == 200, reply.text
        return said(reply.text)

    assert "Called bad at 20" in say("bad", HOSTILE)
    assert labels_of(data)[key]["note"] == HOSTILE.strip()
    assert "Called good at" in say("good")
    assert "<script>document.title" in said(page(client, view="labels"))
    assert "Nobody has labelled it" in say("take back")
    assert key not in labels_of(data)
    spoken = f"SELECT good FROM labels WHERE response_id = '{key}' ORDER BY said_at"
    assert query(data, spoken)["good"].to_pylist() == [False, True, None]


WRONG = {
    "no word": ({"said": "fine"}, "a label says good, bad, take back"),
    "nothing": ({}, "a label says"),
    "no row": ({"response_id": "ab' OR 1=1 --", "said": "good"}, "there is no response"),
    "a long note": ({"said": "good", "note": "x" * 2001}, "at most 2,000 characters"),
    "a long form": ({"said": "good", "note": "x" * 60_000}, "more than 50,000 bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_label_that_is_none_is_refused_and_nothing_is_written(client: TestClient, root: Path, case: str) -> None:
    given, why = WRONG[case]
    before = query(root / "data", "SELECT count(*) FROM labels")[0][0].as_py()
    reply = client.post(f"/{TOKEN}/label", data=given)
    assert reply.status_code == 400 and why in said(reply.text)
    assert query(root / "data", "SELECT count(*) FROM labels")[0][0].as_py() == before


def test_a_label_of_another_window_is_seen_at_once(client: TestClient, root: Path) -> None:
    data = root / "data"
    row = query(data, "SELECT response_id, prompt_id FROM responses ORDER BY 1").to_pylist()[5]
    page(client, f"row/{row['response_id']}")
    Writer(data).say(row["response_id"], row["prompt_id"], True, "theirs")
    assert "theirs" in said(page(client, f"row/{row['response_id']}"))
    assert "theirs" in said(page(client, view="labels"))


def test_a_table_that_changes_is_read_anew(tmp_path: Path) -> None:
    rows = responses().to_pylist()
    parquet.write(RESPONSES, tmp_path / "responses/train/teacher", 1, [RESPONSES.rows(rows[:3])])
    tables = Tables(tmp_path)
    try:
        assert tables.count("SELECT count(*) FROM responses", "") == 3
        parquet.write(RESPONSES, tmp_path / "responses/train/teacher", 1, [RESPONSES.rows(rows)])
        assert tables.count("SELECT count(*) FROM responses", "") == len(rows)
        assert Scan(RESPONSES, (tmp_path / "responses/train/teacher",)).count() == len(rows)
    finally:
        tables.end()


# Text of others.


def test_what_a_model_wrote_is_text_on_every_page(client: TestClient, root: Path) -> None:
    data = root / "data"
    key = query(data, "SELECT response_id FROM responses WHERE sample = 0 ORDER BY 1")["response_id"][0].as_py()
    client.post(f"/{TOKEN}/label", data={"response_id": key, "said": "bad", "note": HOSTILE})
    pages = [page(client, where=HOSTILE, status=400)]
    views = ("responses", "prompts", "evals", "labels", "drops", "scores_wide", "gaps")
    pages += [page(client, view=view) for view in views]
    pages += [page(client, f"row/{key}"), page(client, "compare", outcome="all"), page(client, "instance/evals/kd")]
    for text in pages:
        seen = Seen()
        seen.feed(text)
        assert not seen.tags & {"script", "img", "iframe", "object", "embed", "style", "svg", "base"}
        assert not [name for name in seen.attributes if name.startswith("on") or name in ("src", "style")]
        assert "\x1b" not in text and "\u202e" not in text
    assert "&lt;script&gt;" in pages[-3] and r"\x1b[31mred" in pages[-3] and "{{ 7 * 7 }}" in html.unescape(pages[-3])


class Seen(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes = set[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


# The command.


def test_the_command_prints_its_address_and_ends_when_it_is_told_to(root: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "view"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        address = child.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
        opened = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opened.open(address, timeout=60) as reply:
            assert reply.status == 200 and b"<h1>responses</h1>" in reply.read()
        child.send_signal(signal.SIGINT)
        assert child.wait(30) in (0, 130)
        assert "Traceback" not in child.stderr.read()


def test_where_there_is_nothing_to_look_at_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["view"]) == 1
    assert "there is no folder data/ here" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["x", "-1", "65536", "80.5"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["view", "--port", port])
    assert "number of a port" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", "--port", str(port)]) == 1
    assert f"port {port} cannot be listened on (Address already in use): leave --port out" in capsys.readouterr().err


def test_a_row_shows_the_pictures_of_its_prompt_and_no_other_array(root: Path, client: TestClient) -> None:
    data = root / "data/prompts/train/tasks"
    rows = Scan(PROMPTS, (data,)).pylist()
    assert "<img" not in page(client, f"row/{rows[0]['prompt_id']}")
    picture = np.random.default_rng(0).integers(0, 256, (300, 20, 3)).astype(np.uint8)
    shown = {"image": picture, "x": np.ones((3, 2), np.float32)}
    changed = [{**row, "inputs": cell(shown) if row is rows[0] else row["inputs"]} for row in rows]
    parquet.write(PROMPTS, data, 1, [PROMPTS.rows(changed)])
    [source] = re.findall(
        r'<img class="shown" src="data:image/png;base64,([^"]+)"', page(client, f"row/{rows[0]['prompt_id']}")
    )
    assert pixels(base64.b64decode(source)).shape == (256, 17, 3)
    parquet.write(PROMPTS, data, 1, [PROMPTS.rows(rows)])
