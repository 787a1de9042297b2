"""Data Docs in a real browser: no console error, no request off the page, and a model's script stays text."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.contracts import RESPONSES
from pipeline.core.driver import run_instance
from pipeline.core.settings import RunSettings
from pipeline.core.stage import Instance
from pipeline.stages import quality
from pipeline.tables import ids, parquet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]
UNSAFE = (
    "<script>document.title='taken'</script></td></table>"
    "<img src=http://remote.example/x.png onerror=\"document.title='taken'\">"
)
PLANTED = (
    f"{UNSAFE}<meta http-equiv=refresh content='0;url=http://remote.example/'>"
    "<iframe src=http://remote.example/></iframe>"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages about a table whose texts are hostile and whose seeds are all the same."""
    data = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(12):
        messages = [{"role": "user", "content": f"What is {i}?"}]
        prompt_id = ids.prompt_id(messages)
        rows.append(
            {"response_id": ids.digest(i), "request_id": f"q{i}", "prompt_id": prompt_id, "messages": messages,
             "domain": PLANTED, "entry": "m", "model_id": "m", "sample": 0, "seed": 7, "content": f"{PLANTED} {i}",
             "finish_reason": PLANTED, "prompt_tokens": 1, "completion_tokens": 1, "attempts": 1}
        )  # fmt: skip
    parquet.write(RESPONSES, data / "responses" / "made", 1, [RESPONSES.rows(rows)])
    params = quality.Params.model_validate({"of": "responses/made", "suite": "responses"})
    instance = Instance("quality", "docs", params, {"checked": ("responses/made",)}, "quality/docs", "")
    run_instance(instance, RunSettings(), data, data)
    docs = data / "quality" / "docs" / "docs"
    # What the watcher below must see, or it sees nothing on the other pages either.
    (docs / "unsafe.html").write_text(
        # An icon of its own: whether a browser that is about to close still asks a server for one is chance.
        f"<title>unsafe</title><link rel=icon href='data:,'>{UNSAFE}<script>no()</script>"
    )
    return docs


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(site))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def visit(url: str, folder: Path) -> tuple[str, list[str], set[str]]:
    """The page as the browser holds it, its console messages, and the addresses that the page asked for."""
    log = folder / "net.json"
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-default-apps", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
         "--virtual-time-budget=2000", "--dump-dom", url],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    console = re.findall(r"CONSOLE.*", done.stderr)
    told = [event.get("params", {}) for event in json.loads(log.read_text("utf-8", "replace"))["events"]]
    # What the browser asks on its own account has no page as its initiator.
    asked = {p["url"] for p in told if "url" in p and p.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, console, asked


def test_the_watcher_sees_what_an_unsafe_page_does(address: str, tmp_path: Path) -> None:
    page, console, asked = visit(f"{address}/unsafe.html", tmp_path)
    assert "<title>taken</title>" in page
    assert any("no is not defined" in line for line in console)
    assert asked == {"http://remote.example/x.png"}


@pytest.mark.parametrize("name", ["index.html", "validation.html"])
def test_a_page_is_quiet_and_its_hostile_texts_are_inert(address: str, tmp_path: Path, name: str) -> None:
    page, console, asked = visit(f"{address}/{name}", tmp_path)
    assert console == []
    assert asked == set()
    assert "<title>quality docs" in page
    assert re.search(r"<(script|img|iframe)\b", page) is None
    assert "&lt;script&gt;" in page


def test_pages_open_from_the_disk(site: Path, tmp_path: Path) -> None:
    page, console, asked = visit((site / "index.html").as_uri(), tmp_path)
    assert (console, asked) == ([], set())
    assert "expectations failed" in page
    assert json.loads((site.parent / "verdict.json").read_text())["success"] is False
