"""A real `vllm serve` around a model folder, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

READY_S = 500.0
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


@contextmanager
def vllm_serve(folder: Path, name: str) -> Iterator[str]:
    """The URL of a server of this folder's model; its processes, which are a group of their own, end with the block."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    # The command `vllm` asks for a distribution of that name, and the one for the CPU has another.
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32",
        "--generation-config", "vllm", "--max-logprobs", "64", "--max-num-seqs", "16", "--enforce-eager",
        "--no-enable-chunked-prefill", "--no-enable-log-requests",
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **ENVIRONMENT}
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        group = [p for p in psutil.process_iter() if _group(p.pid) == process.pid]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        if psutil.wait_procs(group, timeout=20)[1]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise RuntimeError(f"vllm serve did not start:\n{log.read_text('utf-8')[-4000:]}")
