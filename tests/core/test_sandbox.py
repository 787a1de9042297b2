"""The sandbox: what a program may not do, how it ends, and that nothing runs where there are no walls."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import sandbox
from pipeline.bounded import Limits
from pipeline.errors import Refused
from pipeline.sandbox import Run, Walls, run

LIMITS = Limits(seconds=20, memory=500_000_000)
SHORT = Limits(seconds=1.5, memory=500_000_000)
WALLS: tuple[Walls, ...] = ("unshare", "none")
walled = pytest.mark.skipif(sandbox.unsafe() is not None, reason=f"no sandbox here: {sandbox.unsafe()}")


@pytest.fixture(params=[pytest.param("unshare", marks=walled), "none"])
def walls(request: pytest.FixtureRequest) -> Walls:
    return request.param


@pytest.mark.parametrize(
    ("program", "code", "output"),
    [
        ("print(1 + 1)", 0, "2\n"),
        ("print('é')", 0, "é\n"),
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import numpy; print(numpy.arange(3).sum())", 0, "3\n"),
        ("open('own.txt', 'w').write('x'); print(open('own.txt').read())", 0, "x\n"),
        ("import os; print(sorted(set(os.environ) & {'HOME', 'PYTHONPATH', 'USER'}))", 0, "[]\n"),
    ],
)
def test_what_a_program_says_and_how_it_ends(walls: Walls, program: str, code: int, output: str) -> None:
    assert run(program, LIMITS, walls) == Run(code, output)


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("x = (", "SyntaxError"),
        ("input()", "EOFError"),
        ("bytearray(10**9)", "MemoryError"),
        ("print('\\0'", "SyntaxError"),
        ("\ud800", "SyntaxError"),
    ],
)
def test_what_it_complains_of(walls: Walls, program: str, error: str) -> None:
    found = run(program, LIMITS, walls)
    assert found.code == 1 and error in found.output and not found.late


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_one_that_never_ends_is_ended(walls: Walls, program: str) -> None:
    began = time.monotonic()
    assert run(program, SHORT, walls).late
    assert time.monotonic() - began < 10


def test_what_it_writes_is_bounded(walls: Walls) -> None:
    found = run("while True: print('x' * 1000)", LIMITS, walls)
    assert found.code != 0 and len(found.output) <= sandbox.WRITES
    found = run("open('own.txt', 'w').write('x' * 10**7)", LIMITS, walls)
    assert found.code == 1 and "OSError" in found.output


def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


port = pytest.fixture(listening)


@walled
def test_it_reaches_no_address(port: int) -> None:
    program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('reached')"
    assert run(program, LIMITS, "none").output == "reached\n"
    found = run(program, LIMITS)
    assert found.code == 1 and "OSError" in found.output


@walled
def test_it_sees_and_writes_no_files_but_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    assert run(f"print(open({str(secret)!r}).read())", LIMITS, "none").output == "key\n"
    assert "FileNotFoundError" in run(f"print(open({str(secret)!r}).read())", LIMITS).output
    for path in ("/usr/own", "/own.txt", str(Path(sandbox.__file__).with_name("own"))):
        assert run(f"open({path!r}, 'w')", LIMITS).code == 1
        assert not Path(path).exists()
    # Python itself may lie there.
    seen = {Path(prefix).parts[1] for prefix in (sys.prefix, sys.base_prefix)}
    theirs = {"etc", "home", "tmp", "root"} - seen
    program = f"import os; print({theirs} & {{*os.listdir('/')}}, os.listdir('/old'), os.listdir('/proc'))"
    assert run(program, LIMITS).output == "set() [] []\n"


@walled
@pytest.mark.parametrize(
    "program",
    [
        "import os; os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import threading; threading.Thread(target=print).start()",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
    ],
)
def test_it_starts_no_other_process(program: str) -> None:
    found = run(program, LIMITS)
    assert found.code == 1 and ("Resource temporarily unavailable" in found.output or "new thread" in found.output)


@walled
def test_it_has_no_rights_to_lose() -> None:
    for act in ("chroot('/own')", "mknod('/own/device', 0o60600)", "setuid(1)", "sethostname('x')"):
        module = "socket" if act.startswith("set") and "host" in act else "os"
        assert "PermissionError" in run(f"import {module}; {module}.{act}", LIMITS).output


def test_without_walls_it_is_refused_and_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "unsafe", lambda: "it has no unshare")
    with pytest.raises(Refused, match=r"no unshare.*`sandbox: none`"):
        run(f"open({str(tmp_path / 'x')!r}, 'w')", LIMITS)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Run(None, "unshare: Operation not permitted\n"), "unshare: Operation not permitted"),
        (Run(0, "True False True True\n"), "do not hold"),
        (Run(0, sandbox.PROBED), None),
    ],
)
def test_walls_that_do_not_hold_are_found(monkeypatch: pytest.MonkeyPatch, found: Run, why: str | None) -> None:
    monkeypatch.setattr(sandbox, "_run", lambda *_: found)
    monkeypatch.setattr(sandbox.shutil, "which", lambda *_, **__: "/usr/bin/tool")
    told = sandbox.unsafe.__wrapped__()
    assert told is None if why is None else why in told


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "PATH", "/nowhere")
    assert sandbox.unsafe.__wrapped__() == "it has no unshare"
