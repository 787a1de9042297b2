"""View: the rows of a run in a browser on this machine."""

from __future__ import annotations

import argparse
import secrets
import socket

from pipeline.commands.query import run_settings
from pipeline.commands.screen import show
from pipeline.core.workspace import DATA, ROOT
from pipeline.errors import Refused

ABOUT = "the rows in a browser: filter, read one, see where it came from and what it taught, label it"
MORE = "It answers only to this machine and only under the address that it prints. Ctrl-C ends it."
HERE = "127.0.0.1"


def port_of(text: str) -> int:
    """A port, as an argument."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a number of a port, 0 to 65535")
    return int(text)


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `view`."""
    command.add_argument("--port", type=port_of, default=0, metavar="N", help="listen on this port (any that is free)")


def run(port: int) -> None:
    """Serve the pages until it is interrupted."""
    if not DATA.is_dir():
        raise Refused("there is no folder data/ here: go to the folder of params.yaml")
    settings = run_settings()
    # They take a second, and nothing else needs them.
    import uvicorn

    from pipeline.viewing.app import app

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HERE, port))
            listening.listen()
        except OSError as error:
            why = f"port {port} cannot be listened on ({error.strerror})"
            raise Refused(f"{why}: leave --port out, or take another") from error
        token, port = secrets.token_urlsafe(24), listening.getsockname()[1]
        hosts = frozenset({f"{HERE}:{port}", f"localhost:{port}"})
        show([f"http://{HERE}:{port}/{token}/"])
        pages = app(ROOT, token, hosts, settings)
        uvicorn.Server(uvicorn.Config(pages, log_level="warning", access_log=False)).run(sockets=[listening])
