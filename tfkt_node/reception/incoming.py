"""An instance on its way into the spool: it takes the memory of a buffer, however large it is.

What is larger than the buffer is written and digested while it is still coming in. Most instances
fit, and one large write costs half of several.
"""

from __future__ import annotations

import errno
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Protocol

from tfkt_node.reception.durable import Bytes, PartialFile, sync_folder
from tfkt_node.reception.file_meta import encode_meta
from tfkt_node.records import Refused, StoredInstance

OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000

BUFFER_BYTES = 1 << 20

_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Announced:
    """What is known of an instance before its data set comes: command set and association.

    The UIDs are those of the command set, which need not equal those inside the data set.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    association_id: str | None = None


class Shelf(Protocol):
    """Where an instance will lie: see instances.Spool."""

    incoming: Path

    def path_of(self, digest: str) -> Path:
        """Return where the instance of a digest lies."""

    def lock_of(self, digest: str) -> Lock:
        """Return the lock under which the instance of a digest is kept."""

    def check_room(self, data_bytes: int, to_write_bytes: int) -> None:
        """Raise Refused where a data set is too large, or the disk has no room for the write."""


class Incoming:
    """One instance under way, for one thread. It ends with keep() or discard().

    One that fits into the buffer touches the disk only when it is whole and known to be new.
    write_s: seconds spent on taking its bytes in, digesting and writing them; sync_s: on bringing
    them to the disk, name and all.
    """

    def __init__(self, shelf: Shelf, announced: Announced, buffer: bytearray | None = None) -> None:
        """Begin. Raises Refused for UIDs that cannot key a store.

        buffer: to work with, new_buffer() if None; it may serve one instance after another.
        """
        _check_uids(announced)
        self.write_s = self.sync_s = 0.0
        self._shelf = shelf
        self._announced = announced
        self._sha = begin_digest(
            announced.sop_class_uid, announced.sop_instance_uid, announced.transfer_syntax_uid
        )
        meta = encode_meta(
            announced.sop_class_uid,
            announced.sop_instance_uid,
            announced.transfer_syntax_uid,
            announced.calling_ae,
        )
        self._meta_bytes = len(meta)
        self._data_bytes = 0
        self._file: PartialFile | None = None
        self._buffer = memoryview(buffer or new_buffer())
        self._buffer[: len(meta)] = meta
        self._filled = len(meta)
        self._digested = len(meta)  # of what is in the buffer

    def write(self, chunk: Bytes) -> None:
        """Append bytes of the data set.

        Raises Refused, with nothing kept, for a data set over the limit, for a disk that is full up
        to the reserve, and when the disk fails.
        """
        began = monotonic()
        rest = memoryview(chunk)
        while rest:
            if self._filled == len(self._buffer):
                self._digest_buffer()
                self._write_buffer()
            piece = rest[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            self._data_bytes += len(piece)
            rest = rest[len(piece) :]
        self.write_s += monotonic() - began

    def keep(self, received_at: datetime) -> tuple[StoredInstance, bool]:
        """Bring the instance to the disk, name and all; tell whether it is new.

        Raises Refused as write() does.
        """
        began = monotonic()
        self._digest_buffer()
        digest = self._sha.hexdigest()
        path = self._shelf.path_of(digest)
        size_bytes = self._meta_bytes + self._data_bytes
        try:
            with self._shelf.lock_of(digest):
                is_new = not path.exists()
                if is_new:
                    file = self._write_buffer()
                    written = monotonic()
                    file.keep_as(path)  # what is kept is answered as kept
                else:
                    written = monotonic()
                    self.discard()
                    size_bytes = path.stat().st_size
                    sync_folder(path.parent)  # a crash may have come between rename and sync
        except OSError as error:
            self.discard()
            raise refusal(error) from error
        self.write_s += written - began
        self.sync_s += monotonic() - written
        stored = StoredInstance(
            digest=digest,
            path=path,
            size_bytes=size_bytes,
            sop_class_uid=self._announced.sop_class_uid,
            sop_instance_uid=self._announced.sop_instance_uid,
            transfer_syntax_uid=self._announced.transfer_syntax_uid,
            calling_ae=self._announced.calling_ae,
            received_at=received_at,
            association_id=self._announced.association_id,
        )
        return stored, is_new

    def discard(self) -> None:
        """Leave nothing of it."""
        if self._file is not None:
            self._file.discard()

    def _digest_buffer(self) -> None:
        self._sha.update(self._buffer[self._digested : self._filled])
        self._digested = self._filled

    def _write_buffer(self) -> PartialFile:
        """Bring what is in the buffer to the file, begun if need be; return that."""
        try:
            self._shelf.check_room(self._data_bytes, self._filled)
            if self._file is None:
                self._file = PartialFile(self._shelf.incoming)
            self._file.write(self._buffer[: self._filled])
        except OSError as error:
            self.discard()
            raise refusal(error) from error
        except Refused:
            self.discard()
            raise
        self._filled = self._digested = 0
        return self._file


def new_buffer() -> bytearray:
    """Make a buffer for Incoming."""
    return bytearray(BUFFER_BYTES)


def begin_digest(*uids: str) -> hashlib._Hash:
    """Begin the SHA-256 that names an instance, over the UIDs of its class, itself and its syntax.

    Its data set is to follow.
    """
    sha = hashlib.sha256()
    for uid in uids:
        sha.update(uid.encode("ascii") + b"\0")
    return sha


def is_uid(text: str) -> bool:
    """Tell whether a UID can key a store: 1 to 64 digits and dots. Laxer than PS3.5 section 9.1.

    Components with leading zeros are common and harm nothing here.
    """
    return _UID.fullmatch(text) is not None


def _check_uids(announced: Announced) -> None:
    for name, uid in (
        ("SOP Class UID", announced.sop_class_uid),
        ("SOP Instance UID", announced.sop_instance_uid),
        ("Transfer Syntax UID", announced.transfer_syntax_uid),
    ):
        if not is_uid(uid):
            raise Refused(f"{name} is not 1 to 64 digits and dots", CANNOT_UNDERSTAND)


def refusal(error: OSError) -> Refused:
    """Say for the sender, without a path, why the disk did not take an instance."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused("The disk is full; try again later", OUT_OF_RESOURCES)
    if error.errno == errno.EROFS:
        return Refused("The disk is read-only", OUT_OF_RESOURCES)
    return Refused("The disk cannot be written", OUT_OF_RESOURCES)
