"""Bytes of a file, read when they are asked for.

Read and not mapped: a disk that fails, or a file that is cut short in the meantime, is an error
then and not a signal that ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

WINDOW_BYTES = 64 << 10
"""Small pieces are cut from so much at once."""


class Buffer(Protocol):
    """Bytes that can be sliced: bytes, or those of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> bytes: ...


class FileBytes:
    """Bytes of an open file between two places, read when they are asked for."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._length = end - start
        self._window, self._window_at = b"", 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice, /) -> bytes:
        first, last, _ = where.indices(self._length)
        if last - first > WINDOW_BYTES:
            return self._read(first, last)
        if not self._window_at <= first <= last <= self._window_at + len(self._window):
            self._window_at = first
            self._window = self._read(first, min(first + WINDOW_BYTES, self._length))
        return self._window[first - self._window_at : max(0, last - self._window_at)]

    def _read(self, first: int, last: int) -> bytes:
        return os.pread(self._file.fileno(), max(0, last - first), self._start + first)


@contextmanager
def open_bytes(path: Path) -> Iterator[FileBytes]:
    """Open a file to have its bytes. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        yield FileBytes(file, 0, os.fstat(file.fileno()).st_size)
