"""Prompts from datasets of the Hugging Face Hub, or from a folder in one of its formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source

if TYPE_CHECKING:
    from datasets import Dataset


Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


def local_files(given: Mapping[str, Any]) -> list[str]:
    """The folder that these arguments name; none for a dataset of the hub, whose revision pins it."""
    return [] if given["revision"] else [given["path"]]


@source(files=local_files)
def datasets(*, path: str, revision: Revision | None = None, config: str | None = None, split: str = "train") -> Rows:
    """The rows of a dataset: with `revision` (a commit) an id of the hub, without it a folder on this machine, as
    `save_to_disk` writes it or of data files that `load_dataset` reads.

    Paper: none.
    Differs: nothing is loaded that no commit or content hash pins, and no code that a dataset brings is run.
    """
    found = _open(path, revision, config, split)
    place = f"{path}@{revision[:12]}" if revision else path
    for number, row in enumerate(found, 1):
        yield GivenRow(f"{place}/{split}:{number}", row)


def _open(path: str, revision: str | None, config: str | None, split: str) -> Dataset:
    # Imported where a dataset is opened: it loads pandas, and plan reads this module's signatures.
    from datasets import disable_progress_bars, load_dataset, load_from_disk

    disable_progress_bars()
    folder = Path(path)
    if revision is None and not folder.is_dir():
        raise Refused(f"no folder {path} is here; for a dataset of the hub add `revision:`, the commit to read")
    try:
        if revision is None and (folder / "dataset_dict.json").is_file():
            return load_from_disk(path)[split]
        if revision is None and (folder / "dataset_info.json").is_file():
            return load_from_disk(path)
        return load_dataset(path, config, revision=revision, split=split)
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"the dataset {path} (config {config}, split {split}) cannot be read: {error}") from error
