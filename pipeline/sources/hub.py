"""Prompts from datasets of the Hugging Face Hub, or from a folder in one of its formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pipeline.errors import Refused
from pipeline.kinds.source import GivenRow, Rows, source
from pipeline.sources import files

if TYPE_CHECKING:
    from datasets import Dataset


Revision = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
# How a data file of a folder is read; one that may be packed by gzip has its name before `.gz`.
READERS: Mapping[str, Callable[[str], Rows]] = {
    ".jsonl": files.json_lines,
    ".ndjson": files.json_lines,
    ".json": files.any_json,
    ".csv": files.separated,
    ".tsv": partial(files.separated, separator="\t"),
    ".parquet": files.columns,
}


def local_files(given: Mapping[str, Any]) -> list[str]:
    """The folder that these arguments name; none for a dataset of the hub, whose revision pins it."""
    return [] if given["revision"] else [given["path"]]


@source(files=local_files)
def datasets(*, path: str, revision: Revision | None = None, config: str | None = None, split: str = "train") -> Rows:
    """The rows of a dataset: with `revision` (a commit) an id of the hub, without it a folder on this machine, as
    `save_to_disk` writes it or of data files.

    Paper: none.
    Differs: nothing is loaded that no commit or content hash pins, and no code that a dataset brings is run. Files of a
        folder are chosen for a split as the library chooses them and read one by one, so that they need not agree in
        their columns and text stays text (the library reads `NA` in a CSV as nothing and `007` as 7).
    """
    place = f"{path}@{revision[:12]}" if revision else path
    if revision is None and (found := _data_files(path, config, split)):
        for file in found:
            yield from _reader(file)(file)
        return
    for number, row in enumerate(_undecoded(_open(path, revision, config, split)), 1):
        yield GivenRow(f"{place}/{split}:{number}", row)


def _data_files(path: str, config: str | None, split: str) -> list[str]:
    """The files of a split, if the folder holds data files and nothing says that they are to be read otherwise."""
    folder = Path(path)
    if not folder.is_dir():
        raise Refused(f"no folder {path} is here; for a dataset of the hub add `revision:`, the commit to read")
    if config is not None or any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return []
    # Imported where a dataset is opened: it loads pandas, and plan reads this module's signatures.
    from datasets.data_files import DataFilesList, EmptyDatasetError, get_data_patterns

    try:
        patterns = get_data_patterns(str(folder.absolute()))
    except EmptyDatasetError as error:
        raise Refused(f"{path} holds no data file. Read single files with `use: files.jsonl`") from error
    if split not in patterns:
        raise Refused(f"{path} has no split {split!r}; it has {', '.join(sorted(map(str, patterns)))}")
    found = DataFilesList.from_patterns(patterns[split], base_path=str(folder.absolute()))
    shown = sorted({str(folder / Path(name).relative_to(folder.absolute())) for name in found})
    return shown if all(_suffix(name) in READERS for name in shown) else []


def _suffix(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix.lower()


def _reader(name: str) -> Callable[[str], Rows]:
    return READERS[_suffix(name)]


def _undecoded(found: Dataset) -> Iterator[dict[str, Any]]:
    """The rows, with pictures as the files that they are (`bytes`, and the `path` that they had), and classes by their
    names."""
    from datasets import ClassLabel, Image

    classes = {name: feature.names for name, feature in found.features.items() if isinstance(feature, ClassLabel)}
    pictures = [name for name, feature in found.features.items() if isinstance(feature, Image)]
    for name in pictures:
        found = found.cast_column(name, Image(decode=False))
    for row in found:
        for name in pictures:
            if row[name] and row[name]["bytes"] is None:
                row[name] = {**row[name], "bytes": Path(row[name]["path"]).read_bytes()}
        yield row | files.named(row, classes)


def _open(path: str, revision: str | None, config: str | None, split: str) -> Dataset:
    from datasets import disable_progress_bars, load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    disable_progress_bars()
    folder = Path(path)
    try:
        if revision is None and (folder / "dataset_dict.json").is_file():
            return load_from_disk(path)[split]
        if revision is None and (folder / "dataset_info.json").is_file():
            return load_from_disk(path)
        return load_dataset(path, config, revision=revision, split=split)
    except (OSError, ValueError, KeyError, RuntimeError, DatasetsError) as error:
        cause = error.__cause__ or error
        raise Refused(f"the dataset {path} (config {config}, split {split}) cannot be read: {cause}") from error
