"""Prefect's server on this machine's loopback address: found, or started and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

HOST = "127.0.0.1"


class ServerError(Exception):
    """The server did not start."""


def _noted() -> Path:
    return Path(os.environ["PREFECT_HOME"]) / "server.url"


def running() -> str | None:
    """The API of the server to use: the one that PREFECT_API_URL names, or one that `flows.serve` started here."""
    if named := os.environ.get("PREFECT_API_URL"):
        return named
    url = _noted().read_text("utf-8") if _noted().exists() else None
    return url if url and _is_up(url) else None


@contextmanager
def server(port: int, patience_s: float = 120.0) -> Iterator[str]:
    """The API of a server: the running one, which stays, or a new one, which ends with this context.

    The first start takes 10 to 40 s, because it makes the database.
    """
    if url := running():
        yield url
        return
    home = _noted().parent
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://{HOST}:{port}/api"
    if _is_up(url):
        raise ServerError(
            f"{url} already answers; set PREFECT_API_URL={url} to use that server, or take another --port"
        )
    with (home / "server.log").open("w") as log:
        # Out of reach of Ctrl-C, which is for the runs first, and they still report their ends to the server.
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "PREFECT_API_URL": url},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + patience_s
        while not _is_up(url):
            if child.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"Prefect's server did not start on {url}; {home / 'server.log'} says why")
            time.sleep(0.2)
        _noted().write_text(url, "utf-8")
        yield url
    finally:
        _noted().unlink(missing_ok=True)
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False
