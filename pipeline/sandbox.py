"""Programs of others, each in a process that can harm nothing: no network, no files but its own, no other process.

    found = run("print(1 + 1)", Limits(seconds=2, memory=500_000_000))

The walls are Linux's namespaces, put up by `unshare` of util-linux: a program sees Python and the system's libraries,
which it cannot change, and an empty folder in memory; it can start no process and no thread, and reach no address.
Where a machine does not allow that, it is refused, unless there are to be no walls (`none`): then its time, its memory
and its files' sizes are bounded, and it may do whatever you may.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pipeline.bounded import Limits
from pipeline.errors import Refused

Walls = Literal["unshare", "none"]
# The most bytes that it may write: to a file, to its folder, and as its output.
WRITES = 1_000_000
PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
TOOLS = ("unshare", "setpriv", "prlimit", "mount", "umount", "pivot_root")
PATIENCE_S = 60
BEGUN = "begun\n"
# In namespaces of its own: a root in memory with what Python needs, in place of the old one. The arguments are the
# root's size and folder, what is seen in it, --, and the command; the program comes as standard input.
WALLED = """
set -eu
mount -t tmpfs -o "size=$1,mode=0755,nosuid,nodev" sandbox "$2"
cd "$2"
shift 2
mkdir -m 1777 own
mkdir old proc
mount --rbind /proc proc
while [ "$1" != -- ]; do
  mkdir -p ".$1"
  mount --rbind "$1" ".$1"
  mount -o remount,bind,ro,nosuid,nodev ".$1"
  shift
done
shift
for name in bin lib lib64; do [ ! -L "/$name" ] || cp -P "/$name" "$name"; done
cat > program.py
exec < /dev/null
pivot_root . old
umount -l /old
umount -l /proc
cd /own
echo begun
exec "$@"
"""
OPEN = 'set -eu; cat > "$1/program.py"; cd "$1"; shift; exec < /dev/null; echo begun; exec "$@"'
# What the walls must keep from it, tried once before any program of others.
PROBE = """
import os, socket
def kept(act):
    try:
        act()
    except OSError:
        return True
print(kept(os.fork), kept(lambda: os.stat("/proc/1")), kept(lambda: os.mkdir("/usr/own")),
      kept(lambda: socket.create_connection(("192.0.2.1", 9), 1)))
"""
PROBED = "True True True True\n"


@dataclass(frozen=True)
class Run:
    """What came of a program: its exit code (below 0 the signal that ended it; None if it was never begun), what it
    said and complained of, and whether its time ran out."""

    code: int | None
    output: str
    late: bool = False

    @property
    def missing(self) -> bool:
        """Whether the machine failed it: it was not begun, or was killed, which only a lack of memory does."""
        return self.code is None or (self.code == -signal.SIGKILL and not self.late)


def run(program: str, limits: Limits, walls: Walls = "unshare") -> Run:
    """Run a program of Python, within seconds by the clock, its start included, and bytes of memory."""
    if walls == "unshare" and (fault := unsafe()):
        raise Refused(
            f"this machine cannot keep a program of others from harm ({fault}): allow user namespaces (in Docker "
            f"`--security-opt seccomp=unconfined`), or write `sandbox: none`, and it may do whatever you may"
        )
    return _run(program, limits, walls)


@cache
def unsafe() -> str | None:
    """Why no walls can be put up here, in a few words; None if they hold."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"it has no {missing[0]}"
    found = _run(PROBE, Limits(seconds=30, memory=None), "unshare")
    if found.code is None:
        return " ".join(found.output.split()) or "unshare failed"
    return None if found.output == PROBED else f"the walls do not hold: {found.output.strip()}"


def _run(program: str, limits: Limits, walls: Walls) -> Run:
    """Run it without asking whether the walls hold."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            _command(folder, limits, walls), stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1",
                 "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        late = False
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin as given:
                given.write(program.encode("utf-8", "replace"))
            # Its time begins with the program: a busy machine takes long to put up walls.
            patience = time.monotonic() + PATIENCE_S
            while child.poll() is None and not os.fstat(said.fileno()).st_size and time.monotonic() < patience:
                time.sleep(0.005)
            child.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        output, code = said.read(WRITES).decode("utf-8", "replace"), child.returncode
    begun = output.startswith(BEGUN)
    return Run(code if begun else None, output.removeprefix(BEGUN), late or code == -signal.SIGXCPU)


def _command(folder: str, limits: Limits, walls: Walls) -> list[str]:
    """What starts Python on the program that comes as standard input."""
    bounds = [f"--cpu={math.ceil(limits.seconds) + 1}", f"--fsize={WRITES}", "--core=0"]
    bounds += [f"--as={limits.memory}"] if limits.memory is not None else []
    python = [sys.executable, "-s", "-B"]
    if walls == "none":
        return ["sh", "-c", OPEN, "sh", folder, "prlimit", *bounds, *python, "program.py"]
    seen = [path for path in ("/usr", "/bin", "/lib", "/lib64") if Path(path).is_dir() and not Path(path).is_symlink()]
    seen += sorted({path for path in (sys.base_prefix, sys.prefix) if not path.startswith("/usr/")})
    # A limit of processes does not bind root, and counts all of a user's: a user that nobody else is.
    root = os.geteuid() == 0
    user = [f"--reuid={os.getpid() + (1 << 30)}", "--regid=65534", "--clear-groups"] if root else []
    return [
        "unshare", *([] if root else ["--user", "--map-root-user"]), "--net", "--pid", "--ipc", "--uts", "--mount",
        "--fork", "--kill-child", "sh", "-c", WALLED, "sh", str(WRITES), folder, *seen, "--",
        "setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
        "prlimit", "--nproc=1", *bounds, *python, "/program.py",
    ]  # fmt: skip
