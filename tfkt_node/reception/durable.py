"""Write files so that, name and all, they are on the disk before anybody is told so (P1)."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".part"
"""Ending of the name of a file that is still being written."""

Bytes = bytes | bytearray | memoryview


class PartialFile:
    """A file under a temporary name, until it is kept under its own or discarded.

    It is whole under its name, or not there, whatever happens: write, fsync, rename, fsync of the
    folder; in this order a power cut at any point leaves either nothing or everything (the sweep
    takes partial files away). Every method raises OSError when the disk fails.
    """

    def __init__(self, folder: Path) -> None:
        """Begin a file. folder: on the file system of the place where it will be kept."""
        self._path = folder / f".{secrets.token_hex(12)}{PARTIAL}"
        opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = open(opened, "wb", buffering=0)  # noqa: SIM115 - outlives the call

    def write(self, chunk: Bytes) -> None:
        """Append bytes."""
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def keep_as(self, path: Path) -> None:
        """Give the file its name, durably. After an OSError there is nothing under either name."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.rename(path)
        except OSError:
            self.discard()
            raise
        try:
            sync_folder(path.parent)
        except OSError:
            _remove_quietly(path)
            raise

    def discard(self) -> None:
        """Take the file away, as far as the disk lets it. May be called again."""
        with contextlib.suppress(OSError):
            self._file.close()
        _remove_quietly(self._path)


def write_durably(path: Path, chunks: Iterable[Bytes]) -> None:
    """Write a whole file, see PartialFile. Raises OSError, and leaves nothing under either name."""
    make_folder(path.parent)
    partial = PartialFile(path.parent)
    try:
        for chunk in chunks:
            partial.write(chunk)
    except OSError:
        partial.discard()
        raise
    partial.keep_as(path)


def make_folder(path: Path) -> None:
    """Make a folder and its parents; each new name is synced into the folder that holds it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_quietly(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
