"""Tidy: what DVC remembers about instances that no longer exist, and about processes that were killed.

Outside a DVC run only: a running one writes `dvc.lock` itself. DVC's own interface is used, so that the file is
written as DVC writes it.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.rwlock import _edit_rwlock
from dvc.utils.serialize import modify_yaml

from pipeline.commands import bounds
from pipeline.commands.screen import show
from pipeline.core.workspace import DATA, PARAMS, ROOT, memo_folder
from pipeline.errors import Refused, TryAgain
from pipeline.memo.memo import Memo
from pipeline.plan.map import entries
from pipeline.plan.reading import load
from pipeline.plan.resolve import resolve
from pipeline.plan.status import standings

ABOUT = "forget what is gone in dvc.lock, and bound DVC's cache, the memo and checkpoints"
MORE = "Not while DVC runs, but for --locks."


@contextmanager
def undisturbed(root: Path) -> Iterator[None]:
    """While this holds, no DVC runs here; refuses if one does, and drops dead entries of DVC's busy paths."""
    try:
        with Repo(str(root)) as repo, repo.lock:
            _, living = free_busy_paths(Path(repo.tmp_dir))
            if living:
                raise TryAgain(f"DVC is running here ({living[0]}); wait until it ends")
            yield
    except LockError as error:
        raise TryAgain("DVC is running here; wait until it ends") from error
    except DvcException as error:
        raise Refused(f"DVC cannot open this repository: {error}") from error


def forget(root: Path, known: Collection[str]) -> list[str]:
    """Remove from `dvc.lock` all but the known instances, and dead entries of DVC's busy paths; returns the former."""
    lock = root / "dvc.lock"
    with undisturbed(root):
        if not lock.exists():
            return []
        with modify_yaml(str(lock)) as content:
            gone = [label for label in content["stages"] if label not in known]
            for label in gone:
                del content["stages"][label]
            return gone


def free_busy_paths(folder: Path) -> tuple[int, list[str]]:
    """Drop what killed processes left in DVC's table of busy paths; how many entries, and the commands of the living.

    DVC drops an entry only when its process number is free, and in a container numbers come again soon.
    """
    if not (folder / "rwlock").exists():
        return 0, []
    with _edit_rwlock(str(folder), localfs, False) as busy:
        before = len(_holders(busy))
        busy["write"] = {path: holder for path, holder in busy["write"].items() if holder and _lives(holder)}
        read = {path: [holder for holder in holders if _lives(holder)] for path, holders in busy["read"].items()}
        busy["read"] = {path: holders for path, holders in read.items() if holders}
        living = [str(holder["cmd"]) for holder in _holders(busy)]
        return before - len(living), living


def _holders(busy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of DVC's table of busy paths."""
    return [*filter(None, busy["write"].values()), *(holder for holders in busy["read"].values() for holder in holders)]


def _lives(holder: Mapping[str, int | str]) -> bool:
    """Whether the process of an entry is alive and still the same program."""
    try:
        process = psutil.Process(int(holder["pid"]))
        arguments = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and arguments.endswith(str(holder["cmd"]).partition(" ")[2])
    except psutil.NoSuchProcess:
        return False


def orphaned(folder: Path) -> int:
    """The bytes under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `tidy`."""
    text = "remove data/.orphans too, the tables that nobody owns"
    command.add_argument("--orphans", action="store_true", help=text)
    text = "bring DVC's cache below a size such as 20GB by removing what earlier runs wrote, the oldest first"
    command.add_argument("--cache", type=bounds.size, metavar="SIZE", help=text)
    text = "bring the memo below a size by forgetting what this machine can compute again, the oldest first"
    command.add_argument("--memo", type=bounds.size, metavar="SIZE", help=text)
    text = "remove checkpoints of trainings that are done or gone"
    command.add_argument("--checkpoints", action="store_true", help=text)
    text = "nothing but what killed DVC processes left locked, also while DVC runs"
    command.add_argument("--locks", action="store_true", help=text)


def run(orphans: bool, cache: int | None, memo: int | None, checkpoints: bool, locks: bool) -> None:
    """Forget, in dvc.lock, instances that no longer exist, and what killed DVC processes left locked; bound what is
    asked for."""
    if locks:
        freed, _ = free_busy_paths(ROOT / ".dvc" / "tmp")
        show([f"{freed} entries of killed DVC processes removed"])
        return
    given = load(PARAMS)
    plan = resolve(given)
    show([f"dvc.lock: {', '.join(forget(ROOT, entries(given, ROOT))) or 'nothing'} removed"])
    show(bounds.parts(plan, DATA))
    place = DATA / ".orphans"
    if place.is_dir():
        size = f"{place}: {orphaned(place) / 1e6:.1f} MB"
        if orphans:
            shutil.rmtree(place)
        show([f"{size} {'removed' if orphans else 'of tables that nobody owns; --orphans removes them'}"])
    if cache is not None:
        with undisturbed(ROOT):
            show(bounds.cache(ROOT, cache))
    if memo is not None:
        show(bounds.memo(Memo(memo_folder()), memo))
    if checkpoints:
        show(bounds.checkpoints(plan, DATA, {s.label for s in standings(given, plan, ROOT) if s.state == "clean"}))
