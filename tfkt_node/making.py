"""Makes an owed object from its record alone; a picture needs the worst slice's file as well."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tfkt_node.reception.instances import Spool
from tfkt_node.records import (
    ClaimedObject,
    FloatArray,
    MadeObject,
    ObjectKind,
    Permanent,
    ReportRecord,
    SetAside,
)
from tfkt_node.settings import Report
from tfkt_node.slices.decoding import decode_hu, read_dataset


def make(claimed: ClaimedObject, report: Report, spool: Spool) -> MadeObject:
    """Make the object; where it was made before and its file was lost, as the same bytes.

    Raises Permanent, with the cure, where its record contradicts itself, or other bytes came out.
    """
    made = _made(claimed, report, spool)
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
        "restore its file from the backup of the spool, then run "
        "`tfkt-node deliveries retry --all`",
    )


def _made(claimed: ClaimedObject, report: Report, spool: Spool) -> MadeObject:
    # late: brings highdicom and matplotlib
    from tfkt_node.report import key_objects, structured_report, summary_picture
    from tfkt_node.report.document import ENHANCED_SR_FORM, SR_FORM

    record = replace(claimed.record, decided_at=report.local(claimed.record.decided_at))
    match claimed.kind:
        case ObjectKind.SR:
            return structured_report.build(record, report.worst_slices, SR_FORM)
        case ObjectKind.ENHANCED_SR:
            return structured_report.build(record, report.worst_slices, ENHANCED_SR_FORM)
        case ObjectKind.KOS:
            return key_objects.build(record)
        case ObjectKind.PICTURE:
            return summary_picture.build(record, _worst_slice(record, spool))


def _worst_slice(record: ReportRecord, spool: Spool) -> FloatArray | None:
    """Read the worst slice of a verdict again, in HU; None where its file is gone."""
    from tfkt_node.report.findings import deciding_stack

    worst = deciding_stack(record.assessment).minimum
    if worst is None:
        return None
    path = spool.path_of(worst.digest)
    try:
        return decode_hu(read_dataset(path, pixels=True), worst.frame)
    except (OSError, SetAside):
        return None
