"""A warm parent: the heavy imports are paid once, and stages are forked from them.

Importing torch with transformers costs a process about ten seconds of CPU, and a run starts a dozen. `stillhouse warm
dvc repro` keeps one process that has imported them; `python -m pipeline <stage>` then only passes its arguments,
environment and streams to it and waits. Nothing needs it: plain `dvc repro` gives the same bytes, later.

The parent imports nothing of this package but this module, so a stage always runs the code that is on disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SOCKET = "STILLHOUSE_WARM"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
PACKAGES = (
    "numpy", "pyarrow.parquet", "duckdb", "pydantic", "torch", "transformers.models.auto.modeling_auto",
    "transformers.models.gpt2.modeling_gpt2", "great_expectations",
)  # fmt: skip


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, so that a killed DVC leaves no stage behind."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextlib.contextmanager
def beside(threads: int) -> Iterator[dict[str, str]]:
    """A warm parent while the block runs: the environment in which `python -m pipeline <stage>` finds it."""
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "socket")
        environment = dict(os.environ)
        for name in THREADS:
            environment.setdefault(name, str(threads))
        parent = subprocess.Popen([sys.executable, "-m", "pipeline.core.warm", address], env=environment)
        try:
            yield {**os.environ, SOCKET: address}
        finally:
            parent.terminate()
            parent.wait()


def run_beside(command: Sequence[str], threads: int) -> int:
    """Run a command with a warm parent beside it; returns the command's exit code."""
    with beside(threads) as environment:
        return subprocess.run(command, env=environment, check=False).returncode


def delegate(argv: Sequence[str]) -> int | None:
    """Run `python -m pipeline argv` in a fork of the warm parent; None if there is none, or argv names no stage."""
    address = os.environ.get(SOCKET)
    stage = argv[0] if argv else ""
    if not address or not (stage == "plan" or (Path(__file__).parents[1] / "stages" / f"{stage}.py").exists()):
        return None
    try:
        link = forked(address, "pipeline", argv, str(Path.cwd()), dict(os.environ), [0, 1, 2])
    except OSError:
        return None
    with link:
        answer = link.recv(8)
    # The parent closes the link without a word only if it was itself ended.
    return int.from_bytes(answer, "big") if answer else 1


def forked(
    address: str, module: str, argv: Sequence[str], cwd: str, env: dict[str, str], streams: Sequence[int]
) -> socket.socket:
    """Run a module of this package in a fork of a warm parent. The fork ends when the link is closed; its exit code
    comes over the link when it ends by itself."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(address)
        content = json.dumps({"module": module, "argv": list(argv), "cwd": cwd, "env": env}).encode()
        socket.send_fds(link, [len(content).to_bytes(8, "big")], streams)
        link.sendall(content)
    except OSError:
        link.close()
        raise
    return link


def of_this_machine(threads: int, keep_s: float) -> str:
    """The address of a warm parent that no run owns: it serves whoever is told of it, and ends when nobody has asked
    for so long. It is started where there is none."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    which = sys.executable, str(threads), environment.get("PYTHONPATH", ""), str(Path(__file__).parent)
    folder = Path(tempfile.gettempdir()) / f"stillhouse-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is another user's")
    address = folder / hashlib.blake2b("\0".join(which).encode(), digest_size=8).hexdigest()
    with address.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(str(address))
        except OSError:
            address.unlink(missing_ok=True)
            command = [sys.executable, "-m", "pipeline.core.warm", str(address), str(keep_s)]
            subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL)
    return str(address)


def serve(address: str, keep_s: float | None = None) -> None:
    """Listen first, import then: requests that come early wait for the imports. One thread, so that a fork is safe.

    With `keep_s` it leaves its caller when it listens, and ends when it has had nothing to do for so long.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    if keep_s is not None:
        _leave_caller()
    for name in PACKAGES:
        importlib.import_module(name)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    while True:
        ready = waiting.select(keep_s)
        if not ready and len(waiting.get_map()) == 1:
            Path(address).unlink(missing_ok=True)
            return
        for key, _ in ready:
            if key.fileobj is listener:
                _accept(listener, waiting)
            elif key.fd in waiting.get_map():
                _ended(key.data, waiting)


def _leave_caller() -> None:
    """Go on as a process of nobody's, with streams of nobody's."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)


def _accept(listener: socket.socket, waiting: selectors.BaseSelector) -> None:
    """Fork for one request, and watch both the fork and the caller."""
    link, _ = listener.accept()
    header, streams, _, _ = socket.recv_fds(link, 8, 3)
    if not header:  # somebody only looked whether there is a parent
        link.close()
        return
    size = int.from_bytes(header, "big")
    content = b""
    while len(content) < size:
        content += link.recv(size - len(content))
    child = os.fork()
    if child == 0:
        listener.close()
        link.close()
        _become(json.loads(content), list(streams))
    for stream in streams:
        os.close(stream)
    pair = (link, child, os.pidfd_open(child))
    waiting.register(link, selectors.EVENT_READ, pair)
    waiting.register(pair[2], selectors.EVENT_READ, pair)


def _ended(pair: tuple[socket.socket, int, int], waiting: selectors.BaseSelector) -> None:
    """The fork has ended and the caller is told its exit code, or the caller is gone and the fork is ended."""
    link, child, handle = pair
    waiting.unregister(link)
    waiting.unregister(handle)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(handle)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError), link:
        link.sendall((code if code >= 0 else 128 - code).to_bytes(8, "big"))


def _become(request: dict, streams: list[int]) -> None:
    """Turn this fork into the process that asked."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.environ.pop(SOCKET, None)
        sys.argv = [request["module"], *request["argv"]]
        sys.path[0] = request["cwd"]
        for name in [n for n in sys.modules if n == "pipeline" or n.startswith("pipeline.")]:
            del sys.modules[name]
        runpy.run_module(request["module"], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serve(sys.argv[1], *map(float, sys.argv[2:]))
