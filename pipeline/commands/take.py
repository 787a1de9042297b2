"""Take: what other clones shared, so that this one makes none of it.

What `dvc.lock` names is put in place, and the memo learns it, so that a larger `k` asks for nothing twice. Without a
`dvc.lock`, as after an edit, `dvc repro --pull` finds by what goes into it whatever anybody ever ran and shared.
"""

from __future__ import annotations

import argparse

from dvc.exceptions import DownloadError, DvcException

from pipeline.commands import memo
from pipeline.commands.screen import show
from pipeline.commands.share import move_runs, opened, telling
from pipeline.core.workspace import ROOT, memo_folder
from pipeline.display import listed
from pipeline.errors import Refused, TryAgain
from pipeline.memo.memo import Memo

ABOUT = "take from the remote all that dvc.lock names, and teach the memo what it holds"


def arguments(command: argparse.ArgumentParser) -> None:
    """Nothing may follow `take`."""


def run() -> None:
    """Fetch, put in place, learn."""
    with opened() as repo:
        with telling(repo, "did not give all of it", "mend that, and `stillhouse take` goes on") as there:
            runs = move_runs(repo.cloud.get_remote_odb(hash_name="md5-dos2unix"), repo.cache.legacy)
            if not (ROOT / "dvc.lock").exists():
                told = "There is no dvc.lock here: `dvc repro --pull` takes what they made"
                show([f"{there.url}: {runs} runs taken. {told}"])
                return
            # What DVC remembers of a folder's files is from when the remote lacked them.
            repo.drop_data_index()
            try:
                files = repo.fetch()
            except DownloadError:
                if not all(isinstance(cause, FileNotFoundError) for cause in there.causes):
                    raise
        if lacks := [str(o) for o in repo.index.outs if o.use_cache and o.hash_info and o.changed_cache()]:
            raise TryAgain(
                f"{there.url} lacks files of {len(lacks)} tables that dvc.lock names ({listed(lacks)}); nothing here "
                f"was touched: `stillhouse share` where they were made sends them, and `dvc repro` makes them here"
            )
        try:
            repo.checkout()
        except DvcException as error:
            raise Refused(f"all is fetched, and DVC does not put it in place: {error}") from error
    show([f"{there.url}: {files} files and {runs} runs taken, and what dvc.lock names is in place"])
    memo.fill(Memo(memo_folder()))
