"""Share: what this clone made, in a bucket or another remote of DVC's, for clones that then make none of it.

Objects go before the runs that name them, so a remote never promises what it does not have: DVC's own
`push --run-cache` sends the runs first, and ends well where the remote took none of them.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dvc.config import ConfigError, NoRemoteError
from dvc.exceptions import DvcException, NotDvcRepoError, UploadError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc_data.hashfile.transfer import transfer
from dvc_objects.fs.generic import copy

from pipeline.commands.screen import show
from pipeline.core.workspace import ROOT
from pipeline.errors import Refused, TryAgain

ABOUT = "give a remote of DVC's all that dvc.lock names, and every run by what went into it"
MORE = "Such as s3://bucket/us. Nothing is sent twice. `take` is the other side, and docs/machines.md the whole story."
NAME = "shared"
# What no second try mends.
DENIED = ("PermissionError", "FileNotFoundError", "NoCredentialsError", "PartialCredentialsError", "NoSuchBucket")


def arguments(command: argparse.ArgumentParser) -> None:
    """What may follow `share`."""
    text = "an address, which becomes the default remote in .dvc/config; without it the one that is"
    command.add_argument("remote", nargs="?", default="", metavar="REMOTE", help=text)


def run(remote: str) -> None:
    """Send what is not there yet, and look whether it arrived."""
    with opened() as repo:
        named = _name(repo, remote) if remote else []
    mend = "mend that, and `stillhouse share` sends the rest"
    with opened() as repo, telling(repo, "did not take all of it", mend) as there:
        # Without DVC's index of the remote, which takes a folder's files to be there for ever once its list is.
        here, odb = repo.cache.local, repo.cloud.get_remote_odb()
        with repo.lock:
            wanted = {one for some in repo.used_objs(push=True).values() for one in some}
            sent = transfer(here, odb, wanted, cache_odb=here, shallow=False)
        if sent.failed:
            raise UploadError(len(sent.failed))
        runs = move_runs(repo.cache.legacy, repo.cloud.get_remote_odb(hash_name="md5-dos2unix"))
        show([*named, f"{there.url}: {len(sent.transferred)} files and {runs} runs sent, all others are there"])


def _name(repo: Repo, remote: str) -> list[str]:
    """Make an address the default remote, and say that others must know."""
    with repo.config.edit("repo") as config:
        before = config["remote"].get(config["core"].get("remote"), {}).get("url")
        if before == remote:
            return []
        config["remote"][NAME] = {**config["remote"].get(NAME, {}), "url": remote}
        config["core"]["remote"] = NAME
    return [f"{remote} is the default remote now: commit .dvc/config and dvc.lock, which a clone begins with"]


@contextmanager
def opened() -> Iterator[Repo]:
    """DVC's repository here."""
    try:
        with Repo(str(ROOT)) as repo:
            yield repo
    except NotDvcRepoError as error:
        raise Refused("there is no DVC repository here; call this in a clone or a workspace") from error
    except LockError as error:
        raise TryAgain("DVC is running here; wait until it ends") from error


@contextmanager
def telling(repo: Repo, what: str, then: str) -> Iterator[Remote]:
    """The remote, while errors become one sentence: what it did not do, the first cause, and what `then` mends it."""
    remote = Remote()
    loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    before = [(logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.handlers = False, [remote]
    try:
        remote.url = repo.config["remote"][repo.config["core"]["remote"]]["url"]
        yield remote
    except LockError:
        raise
    except KeyError as error:
        if error.args[0] != "remote":
            raise
        raise Refused("no remote is known here: `stillhouse share s3://bucket/folder` names one") from error
    except ImportError as error:
        lacks = f"dvc-{remote.url.partition(':')[0]}"
        text = f"{remote.url} needs the package {lacks}: `uv pip install --constraint constraints.txt {lacks}`"
        raise Refused(text) from error
    except (NoRemoteError, ConfigError) as error:
        raise Refused(f"DVC cannot use {remote.url}: {error}") from error
    except (DvcException, OSError, *_botocore()) as error:
        cause = remote.causes[0] if remote.causes else error
        text = f"{remote.url} {what} ({_short(cause)}). What went through stays and nothing is lost: {then}"
        raise (Refused if type(cause).__name__ in DENIED else TryAgain)(text) from error
    finally:
        for logger, (propagate, handlers) in zip(loggers, before, strict=True):
            logger.propagate, logger.handlers = propagate, handlers


def move_runs(source: Any, target: Any) -> int:
    """Copy the entries of the run cache that the target lacks; how many."""
    have, has = _runs(source), _runs(target)
    if new := sorted(have - has):
        here, there = ([odb.fs.join(odb.path, *name.split("/")) for name in new] for odb in (source, target))
        copy(source.fs, here, target.fs, there)
    return len(new)


def _runs(odb: Any) -> set[str]:
    place = odb.fs.join(odb.path, "runs")
    found = odb.fs.find(place) if odb.fs.exists(place) else ()
    return {odb.fs.as_posix(odb.fs.relpath(file, odb.path)) for file in found}


class Remote(logging.Handler):
    """An address, and the errors on the way to it, which DVC logs and does not raise."""

    def __init__(self) -> None:
        super().__init__()
        self.url = "the remote"
        self.causes: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.causes.append(record.exc_info[1])


def _botocore() -> tuple[type[Exception], ...]:
    """What S3's own library raises, where it is there."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return ()
    return BotoCoreError, ClientError


def _short(error: BaseException) -> str:
    """The first line of what an error says, without its full stop."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300].rstrip(".")
