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


def write_durably(path: Path, chunks: Iterable[Bytes]) -> None:
    """Write a file so that it is whole under its name, or not there, whatever happens.

    Temporary file in the same folder, fsync, rename, fsync of the folder; in this order a power cut
    at any point leaves either nothing or everything (the sweep takes partial files away). Raises
    OSError, and leaves nothing under either name.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name[:16]}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        _remove_quietly(partial)
        raise
    try:
        sync_folder(path.parent)
    except OSError:
        _remove_quietly(path)
        raise


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
