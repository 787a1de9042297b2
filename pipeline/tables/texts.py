"""Texts of many rows as one array that grows, and lies in a file which is mapped: all of them would fill the memory."""

from __future__ import annotations

from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import Refused

# What the offsets of one array can tell.
MOST = 2**31 - 1


class Column:
    """Texts that are put into an empty file; the array of them needs it open no longer, nor a name of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sizes: list[np.ndarray] = [np.zeros(1, np.int32)]
        self.valid: list[np.ndarray] = []

    def add(self, texts: pa.Array) -> None:
        """Put some at the end."""
        self.valid.append(texts.is_valid().to_numpy(zero_copy_only=False))
        texts = pa.concat_arrays([pc.fill_null(texts, "")])
        _, offsets, data = texts.buffers()
        if data is not None:
            ends = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
            self.file.write(memoryview(data)[ends[0] : ends[1]])
        self.sizes.append(pc.binary_length(texts).to_numpy())

    def array(self) -> pa.StringArray:
        """All of them. No more can be added."""
        sizes, valid = np.concatenate(self.sizes), np.concatenate([*self.valid, np.zeros(0, bool)])
        if (whole := int(sizes.sum(dtype=np.int64))) > MOST:
            raise Refused(f"a column of {len(valid):,} texts has {whole:,} bytes, more than 2 GB; cut the pool in two")
        self.file.flush()
        data = np.memmap(self.file, np.uint8, "r", shape=(whole,)) if whole else np.zeros(0, np.uint8)
        offsets = np.cumsum(sizes, dtype=np.int32)
        bits = None if valid.all() else pa.array(valid).buffers()[1]
        return pa.StringArray.from_buffers(len(valid), pa.py_buffer(offsets), pa.py_buffer(data), bits)
