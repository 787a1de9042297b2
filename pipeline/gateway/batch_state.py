"""The batches that were sent to providers and not fetched yet, each in a file that survives kills and power cuts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from pipeline.errors import Refused


@dataclass
class Sent:
    """One batch: its own random name, where it is, which requests it holds in what form, and what is reserved for it.

    `file` and `batch` are the provider's ids, null until they are known.
    """

    token: str
    url: str
    form: str
    requests: list[str]
    tokens: int
    cost: float
    file: str | None = None
    batch: str | None = None


class Kept:
    """The files of one model's batches: `<folder>/<name>.<token>.json`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def file_of(self, sent: Sent) -> Path:
        return self.folder / f"{self.name}.{sent.token}.json"

    def __iter__(self) -> Iterator[Sent]:
        for file in sorted(self.folder.glob(f"{self.name}.*.json")):
            try:
                yield Sent(**orjson.loads(file.read_bytes()))
            except (orjson.JSONDecodeError, TypeError) as error:
                raise Refused(f"{file} is damaged ({error}). Remove it; its requests are then asked again.") from error

    def keep(self, sent: Sent) -> None:
        """Write one, so that neither a kill nor a power cut leaves half of it."""
        file = self.file_of(sent)
        scratch = file.with_suffix(".new")
        try:
            with scratch.open("wb") as out:
                out.write(orjson.dumps(asdict(sent)))
                out.flush()
                os.fsync(out.fileno())
            scratch.replace(file)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Refused(
                f"{file} cannot be written: {error}. Make room on its disk, or mend its permissions, and run this "
                f"again: what was sent already is found by its name."
            ) from error

    def forget(self, sent: Sent) -> bool:
        """Remove one; of several processes one is told that it did."""
        try:
            self.file_of(sent).unlink()
        except FileNotFoundError:
            return False
        return True
