"""Whether another machine is at work in a folder that several may see, such as one of a network file system.

Locks, and the memory that SQLite's processes share, hold among the processes of one kernel. Between two machines they
hold nothing, without an error: so each says that it is there before it looks for others, and the second is refused.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pipeline.errors import TryAgain

FOLDER = "at-work"
# What Linux calls the time since it was started.
BOOT = Path("/proc/sys/kernel/random/boot_id")
# Who has said where that it is there: process number and folder.
_here: set[tuple[int, Path]] = set()


def alone_in(folder: Path) -> None:
    """Say that this process is at work in a folder, until it ends; refuse if another machine is."""
    place = (folder / FOLDER).resolve()
    if (os.getpid(), place) in _here:
        return
    place.mkdir(parents=True, exist_ok=True)
    own = place / "-".join([_kernel(), _machine(), str(os.getpid()), uuid4().hex[:8]])
    own.write_text(socket.gethostname(), "utf-8")
    try:
        _look(place)
    except BaseException:
        own.unlink(missing_ok=True)
        raise
    _here.add((os.getpid(), place))
    atexit.register(own.unlink, missing_ok=True)


def _look(place: Path) -> None:
    for file in place.iterdir():
        kernel, machine, number, _ = file.name.split("-")
        if kernel == _kernel():
            gone = not _runs(int(number))
        else:
            # It was started anew since, and what ran then is gone.
            gone = machine == _machine()
            if not gone:
                with suppress(FileNotFoundError):
                    name = file.read_text("utf-8")
                    raise TryAgain(
                        f"{place.parent} is in use by {name} (process {number}). Locks and the memo's database hold on "
                        f"one machine alone: wait until it ends, run this there, or have parts made on other machines "
                        f"by `executor: {{use: ray.cluster}}`. If nothing runs there any more, delete {file}"
                    )
        if gone:
            file.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process is there, whoever's it is."""
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _kernel() -> str:
    """The same for all processes whose locks hold against each other."""
    return _short(BOOT.read_text("utf-8")) if BOOT.exists() else _machine()


def _machine() -> str:
    """The same before and after a start."""
    known = Path("/etc/machine-id")
    return _short(socket.gethostname() + (known.read_text("utf-8") if known.exists() else ""))


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
