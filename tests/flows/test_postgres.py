"""One variable puts Prefect's runs into Postgres."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.conftest import Served, free_port, make_repository, until
from tests.flows.test_distill import bring_up_to_date

BIN = next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
INITDB = shutil.which("initdb") or (BIN and str(BIN / "initdb"))
# Postgres refuses to be run by root; its package brings a user.
USER = "postgres" if os.geteuid() == 0 else None


@pytest.fixture
def database() -> Iterator[tuple[str, str]]:
    """A database of its own: its port and the folder of its socket."""
    assert INITDB is not None
    home = Path(INITDB).resolve().parent
    place = Path(tempfile.mkdtemp(prefix="postgres"))
    if USER:
        shutil.chown(place, USER)
    port = str(free_port())
    command = [INITDB, "--pgdata", place / "data", "--username", "us", "--auth", "trust", "--no-sync"]
    subprocess.run(command, user=USER, cwd=place, check=True, capture_output=True)
    server = subprocess.Popen(
        [home / "postgres", "-D", place / "data", "-k", place, "-h", "127.0.0.1", "-p", port, "-F"],
        user=USER, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ready = [home / "pg_isready", "--host", "127.0.0.1", "--port", port]
        until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        yield port, str(home / "psql")
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.long
@pytest.mark.skipif(INITDB is None, reason="there is no Postgres here (apt: postgresql)")
def test_runs_are_kept_in_postgres(database: tuple[str, str], tmp_path: Path) -> None:
    port, psql = database
    url = f"postgresql+asyncpg://us@127.0.0.1:{port}/postgres"
    repository = make_repository(tmp_path / "repository")
    bring_up_to_date(repository)
    served = Served(repository, tmp_path / "home", PREFECT_API_DATABASE_CONNECTION_URL=url)
    try:
        run = served.start()
        assert served.ended(run).type == "COMPLETED"
    finally:
        served.end()
    command = [psql, "-h", "127.0.0.1", "-p", port, "-U", "us", "-At", "-c", "select id, state_name from flow_run"]
    said = subprocess.run([*command, "postgres"], capture_output=True, text=True, check=True).stdout
    assert said == f"{run}|Nothing changed\n"
    assert not list((tmp_path / "home").glob("*.db"))
