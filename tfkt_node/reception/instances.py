"""The spool: every instance in a file of its own, as received, named by its digest.

Guarantees P1 (a stored instance is synced: file, name and folder) and P2 (the data set's bytes are
those of the wire). It reads no content: the file meta information is made from the command set and
the presentation context.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tfkt_node.reception.durable import (
    PARTIAL,
    Bytes,
    make_folder,
    sync_folder,
    write_durably,
)
from tfkt_node.reception.file_meta import (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    SOURCE_AE,
    TRANSFER_SYNTAX_UID,
    read_meta,
)
from tfkt_node.reception.incoming import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_CLASS,
    OUT_OF_RESOURCES,
    Announced,
    Incoming,
    begin_digest,
    is_uid,
    refusal,
)
from tfkt_node.records import Misconfigured, Reason, Refused, SetAside, StoredInstance

__all__ = [
    "CANNOT_UNDERSTAND",
    "DOES_NOT_MATCH_CLASS",
    "OUT_OF_RESOURCES",
    "ReceivedInstance",
    "Spool",
    "digest_of",
    "is_uid",
    "make_folder",
    "read_meta",
    "read_stored",
    "refusal",
    "sync_folder",
    "write_durably",
]

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class ReceivedInstance:
    """An instance as it came over the wire. dataset: its bytes, in the transfer syntax named.

    The UIDs are those of the command set, which need not equal those inside the data set.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: Bytes
    calling_ae: str
    received_at: datetime
    association_id: str | None = None


def digest_of(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, dataset: Bytes
) -> str:
    """Name the exact instance: 64 hex digits.

    SHA-256 over the three UIDs, each ended by a NUL, and the data set; so it can be computed again
    from the file alone, and the same bytes under another UID are another instance.
    """
    sha = begin_digest(sop_class_uid, sop_instance_uid, transfer_syntax_uid)
    sha.update(dataset)
    return sha.hexdigest()


class Spool:
    """The folder of received instances and made objects.

    Layout: instances/<first two hex digits>/<digest>.dcm, instances/incoming for what is still
    under way, and objects/<SOP Instance UID>.dcm.
    Many threads may store at once; one process writes: the one that has made the claim.
    """

    def __init__(
        self, root: Path, *, reserve_bytes: int = 0, maximum_bytes: int | None = None
    ) -> None:
        """Open the spool and lay out its folders.

        reserve_bytes stay free on the disk, and a data set over maximum_bytes is refused. Raises
        OSError when the folder cannot be written.
        """
        self.root = root.absolute()  # rows name files by path, whatever folder a command runs in
        self.instances = self.root / "instances"
        self.incoming = self.instances / "incoming"
        self.objects = self.root / "objects"
        self._reserve_bytes = reserve_bytes
        self._maximum_bytes = maximum_bytes
        # Two threads with the same bytes take turns, so that one of them finds a duplicate.
        self._locks = [threading.Lock() for _ in range(256)]
        self._give_up_claim: Callable[[], object] = lambda: None
        for folder in (self.instances, self.incoming, self.objects):
            make_folder(folder)
        # All folders at once: a thread must never store into a folder that another thread has
        # made but not yet synced.
        for number in range(256):
            (self.instances / f"{number:02x}").mkdir(exist_ok=True)
        for folder in (self.instances, self.root):
            sync_folder(folder)

    def claim(self) -> None:
        """Make this the one spool object that writes, until release(), or until its process ends.

        A second node would sweep away what the first is writing. Raises Misconfigured when another
        has the claim, OSError when the lock cannot be made.
        """
        lock = os.open(self.root / LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Misconfigured(
                f"storage.spool: another node has the folder {self.root} open; stop that node "
                "first, or give this one a storage.spool and a storage.database_url of its own"
            ) from None
        except OSError:
            os.close(lock)
            raise
        self._give_up_claim = weakref.finalize(self, os.close, lock)

    def release(self) -> None:
        """Give the claim up; without one nothing happens."""
        self._give_up_claim()

    def path_of(self, digest: str) -> Path:
        """Return where the instance of a digest lies. Raises ValueError for anything else."""
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError("a digest has 64 hex digits")
        return self.instances / digest[:2] / f"{digest}.dcm"

    def object_path(self, sop_instance_uid: str) -> Path:
        """Return where an object made by this node lies. Raises ValueError for an odd UID."""
        if not is_uid(sop_instance_uid):
            raise ValueError("a UID has 1 to 64 digits and dots")
        return self.objects / f"{sop_instance_uid}.dcm"

    def store(self, received: ReceivedInstance) -> tuple[StoredInstance, bool]:
        """Keep an instance whose data set is in memory, synced; tell whether it is new.

        Raises Refused, with nothing kept: see Incoming.
        """
        incoming = Incoming(
            self,
            Announced(
                received.sop_class_uid,
                received.sop_instance_uid,
                received.transfer_syntax_uid,
                received.calling_ae,
                received.association_id,
            ),
        )
        incoming.write(received.dataset)
        return incoming.keep(received.received_at)

    def lock_of(self, digest: str) -> threading.Lock:
        """Return the lock under which the instance of a digest is kept."""
        return self._locks[int(digest[:2], 16)]

    def free_bytes(self) -> int:
        """Return the bytes of the disk that may still be used, the reserve taken off."""
        disk = os.statvfs(self.instances)
        return disk.f_bavail * disk.f_frsize - self._reserve_bytes

    def check_room(self, data_bytes: int, to_write_bytes: int) -> None:
        """Raise Refused where a data set is too large, or the disk has no room for the next write.

        data_bytes: what has come of the data set, written or not.
        """
        if self._maximum_bytes is not None and data_bytes > self._maximum_bytes:
            raise Refused("The data set is larger than this node accepts", OUT_OF_RESOURCES)
        if to_write_bytes > self.free_bytes():
            raise Refused("The disk is full up to its reserve; try again later", OUT_OF_RESOURCES)

    def stored_files(self) -> Iterator[Path]:
        """Yield the file of every instance, in the order of digests within each folder."""
        for folder in sorted(self.instances.iterdir()):
            yield from sorted(folder.glob("*.dcm"))

    def sweep_partial_files(self) -> int:
        """Remove what a crash left half-written; return how many. Only while nothing is stored."""
        partial = [*self.instances.glob(f"*/.*{PARTIAL}"), *self.objects.glob(f".*{PARTIAL}")]
        for path in partial:
            path.unlink(missing_ok=True)
        return len(partial)


def read_stored(path: Path) -> StoredInstance:
    """Rebuild what reception knew of an instance from its file; received_at is the file's time.

    Raises SetAside(UNREADABLE) for a file that reception did not write, OSError when it is gone.
    """
    meta, _ = read_meta(path)
    try:
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = (
            meta[number] for number in (SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID)
        )
    except KeyError:
        raise SetAside(Reason.UNREADABLE) from None
    status = path.stat()
    return StoredInstance(
        digest=path.stem,
        path=path,
        size_bytes=status.st_size,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        calling_ae=meta.get(SOURCE_AE, ""),
        received_at=datetime.fromtimestamp(status.st_mtime, UTC),
    )
