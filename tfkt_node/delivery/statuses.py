"""What the answer to a C-STORE means for a delivery: one table (PS3.4 B.2.3, PS3.7 annex C)."""

from __future__ import annotations

from dataclasses import dataclass

from tfkt_node.records import RETRY_DELIVERIES, Permanent, Retriable


@dataclass(frozen=True, slots=True)
class Receipt:
    """The destination has the object. comment: its remark where it answered with a warning."""

    status: int
    comment: str = ""


class NoAssociation(Retriable):
    """No association came about: nothing was tried."""


class NoAnswer(Retriable):
    """The association ended with this object in hand."""


class Lost(Permanent):
    """The file of the object is gone, or is no longer what was made."""


Answer = Receipt | Retriable | Permanent

SUCCESS = 0x0000
DUPLICATE_INSTANCE = 0x0111
CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124

_CURE = f"then run {RETRY_DELIVERIES}"


def meaning_of(status: int | None, comment: str = "") -> Answer:
    """Map a C-STORE status to what happens next. None: there was no answer.

    The peer's comment is kept with a receipt only: it may quote the patient, so no error holds it.
    """
    if status is None:
        return NoAnswer("no answer to C-STORE: the destination aborted or took too long")
    if status == SUCCESS:
        return Receipt(status)
    if status & 0xF000 == 0xB000:
        return Receipt(status, comment or "stored with a warning (coerced or discarded elements)")
    if status == DUPLICATE_INSTANCE:
        # The UID stands for exactly these bytes: an earlier attempt arrived and its answer did not.
        return Receipt(status, comment or "the destination had it already")
    if status & 0xFF00 == 0xA700:
        return Retriable(f"the destination is out of resources (0x{status:04X})")
    return _refusal(status) or Retriable(f"the destination failed to store it (0x{status:04X})")


def lost() -> Lost:
    """Say that an object cannot be sent for want of its file."""
    return Lost(
        "the file of the object is gone, or is no longer what was made",
        f"look after the disk of the spool, {_CURE}, which makes the object anew",
    )


def _refusal(status: int) -> Permanent | None:
    if status & 0xFF00 == 0xA900:
        what, cure = "the data set does not match its SOP class", "ask the destination's vendor why"
    elif status & 0xF000 == 0xC000:
        what, cure = "it cannot understand the data set", "ask the destination's vendor why"
    elif status == CLASS_NOT_SUPPORTED:
        what, cure = "it does not support the SOP class", "enable Structured Reports there"
    elif status == NOT_AUTHORIZED:
        what, cure = "it does not allow this AE title to store", "allow delivery.ae_title there"
    else:
        return None
    return Permanent(f"the destination refused it: {what} (0x{status:04X})", f"{cure}, {_CURE}")
