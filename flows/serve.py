"""`make serve`: Prefect's server, the flow with its schedules, and the reports, all on this machine only, until Ctrl-C.

    python -m flows.serve [--cron "0 3 * * *"] [--check "0 * * * *"] [--rounds "0 3 * * sun"]

The deployment `distill` brings everything up to date; `check` looks at the tables that are there, and makes none;
`rounds` goes on with the section `rounds:`. They never run side by side: the next waits for the one that runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flows.server import HOST, ServerError, server


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def reports(folder: Path, port: int) -> Iterator[str]:
    """The address of a folder of pages: a browser follows no `file://` link from a page that came over http."""
    with ThreadingHTTPServer((HOST, port), partial(_Quiet, directory=str(folder))) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{pages.server_port}"
        finally:
            pages.shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM, and leave no process behind."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--cron", help="when `distill` runs by itself; without it, never")
    parser.add_argument("--check", metavar="CRON", help="when `check` does")
    parser.add_argument("--rounds", metavar="CRON", help="when `rounds` does")
    parser.add_argument("--port", type=int, default=4200, help="of the server and its pages (4200)")
    parser.add_argument("--reports-port", type=int, default=4220, help="of data/reports (4220)")
    given = parser.parse_args(arguments)
    # A shell's background jobs inherit an ignored SIGINT; this one is to be ended by it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with server(given.port) as url, reports(Path.cwd() / "data" / "reports", given.reports_port) as pages:
            # Prefect reads its settings when it is imported; the runs are children and inherit both.
            os.environ.update(PREFECT_API_URL=url, STILLHOUSE_REPORTS_URL=pages)
            from prefect import serve
            from prefect.flows import EntrypointType

            from flows.distill import distill
            from flows.rounds import rounds

            by_path = EntrypointType.MODULE_PATH
            deployed: list[Any] = [
                distill.to_deployment("distill", cron=given.cron, entrypoint_type=by_path),
                distill.to_deployment("check", cron=given.check, parameters={"checks": True}, entrypoint_type=by_path),
                rounds.to_deployment("rounds", cron=given.rounds, entrypoint_type=by_path),
            ]
            print(f"runs: {url.removesuffix('/api')}   reports: {pages}   Ctrl-C ends all", flush=True)
            serve(*deployed, limit=1, print_starting_message=False)
    except (ServerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
