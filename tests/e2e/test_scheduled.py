"""The default graph, run by its schedule through a real Prefect server: its verdict is shown, and somebody is told."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.conftest import Workspace
from tests.flows.conftest import Served, until


@pytest.mark.long
def test_a_scheduled_run_shows_its_verdict_and_tells_it(
    done: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Once a minute: the first run trains what a changed parameter asks for, those after it find nothing to do."""
    done.edit(lambda params: params["train"]["kd"].update(epochs=2))
    home = tmp_path_factory.mktemp("home")
    served = Served(done.root, home, "--cron", "* * * * *", STILLHOUSE_WARM=done.env["STILLHOUSE_WARM"])
    try:
        until(lambda: served.heard, 500)
        (told,) = served.heard
        assert told["subject"] == "repo: Ran"
        results = done.run("python", "-m", "pipeline", "results").stdout
        assert "kd against coverage_sft" in results and "time: " in results
        assert results.strip() in told["text"]

        (artifact,) = served.filter("artifacts", artifacts={"key": {"any_": ["results"]}})
        assert artifact["data"] == f"```text\n{results}\n```"
        run = served.api.get(f"/flow_runs/{artifact['flow_run_id']}").raise_for_status().json()
        assert run["auto_scheduled"] and run["state"]["type"] in {"RUNNING", "COMPLETED"}
        states = served.ended(str(run["id"])).states
        assert states["train@kd"] == "Ran" and states["train@coverage_sft"] == "Nothing changed"

        def quiet() -> bool:
            try:
                runs = served.filter("flow_runs", flow_runs={"state": {"name": {"any_": ["Nothing changed"]}}})
            except httpx.HTTPError:
                return False
            return bool(runs)

        until(quiet, 150)
        assert len(served.heard) == 1
    finally:
        served.end()
