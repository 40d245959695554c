"""Makes an owed object from its record alone; a picture needs the worst slice's file as well.

That file is opened in a child process with the limits of the scoring process: a decoder that ends
or hangs costs the picture its slice, and not the node its reception (promise P7).
"""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from tfkt_node.child import confine
from tfkt_node.reception.instances import Spool
from tfkt_node.records import (
    RETRY_DELIVERIES,
    ClaimedObject,
    FloatArray,
    MadeObject,
    ObjectKind,
    Permanent,
    ReportRecord,
    SetAside,
)
from tfkt_node.settings import Settings
from tfkt_node.slices.decoding import decode_hu, read_dataset


def make(claimed: ClaimedObject, settings: Settings, spool: Spool) -> MadeObject:
    """Make the object; where it was made before and its file was lost, as the same bytes.

    Raises Permanent, with the cure, where its record contradicts itself, or other bytes came out.
    """
    made = _made(claimed, settings, spool)
    return made if claimed.sha256 is None else _as_before(made, claimed.sha256, spool)


def _as_before(made: MadeObject, sha256: str, spool: Spool) -> MadeObject:
    """Return the object with the bytes that it had, be they those of a file that was restored."""
    if hashlib.sha256(made.content).hexdigest() == sha256:
        return made
    path = spool.object_path(made.sop_instance_uid)
    restored = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(restored).hexdigest() == sha256:
        return replace(made, content=restored)
    raise Permanent(
        "made anew, the object is not what it was: settings or the software have changed since, or "
        "an image is gone",
        f"restore its file from the backup of the spool, then run {RETRY_DELIVERIES}",
    )


def _made(claimed: ClaimedObject, settings: Settings, spool: Spool) -> MadeObject:
    # late: brings highdicom and matplotlib
    from tfkt_node.report import key_objects, structured_report, summary_picture
    from tfkt_node.report.document import ENHANCED_SR_FORM, SR_FORM

    report = settings.report
    record = replace(claimed.record, decided_at=report.local(claimed.record.decided_at))
    match claimed.kind:
        case ObjectKind.SR:
            return structured_report.build(record, report.worst_slices, SR_FORM)
        case ObjectKind.ENHANCED_SR:
            return structured_report.build(record, report.worst_slices, ENHANCED_SR_FORM)
        case ObjectKind.KOS:
            return key_objects.build(record)
        case ObjectKind.PICTURE:
            return summary_picture.build(record, _worst_slice(record, settings, spool))


def _worst_slice(record: ReportRecord, settings: Settings, spool: Spool) -> FloatArray | None:
    """Read the worst slice of a verdict again, in HU; None where that is not possible."""
    from tfkt_node.report.findings import deciding_stack

    worst = deciding_stack(record.assessment).minimum
    if worst is None:
        return None
    path = spool.path_of(worst.digest)
    if not path.exists():
        return None
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
        target=_decode, args=(theirs, path, worst.frame, settings), name="tfkt-node-slice",
        daemon=True,
    )  # fmt: skip
    with ours:
        with theirs:  # else its end would not be seen on our side
            child.start()
        try:
            is_there = ours.poll(settings.scoring.read_time_limit_s)
            hu: FloatArray | None = ours.recv() if is_there else None
        except EOFError:  # it crashed
            return None
        finally:
            child.kill()
            child.join()
        return hu


def _decode(pipe: Connection, path: Path, frame: int | None, settings: Settings) -> None:
    confine(settings)
    try:
        ds = read_dataset(path, pixels=True, limits=settings.limits)
        pipe.send(decode_hu(ds, frame, settings.limits))
    except (OSError, SetAside, MemoryError):
        pipe.send(None)
