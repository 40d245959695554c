"""Sends files to a destination by C-STORE, and asks destinations what they take.

Data sets go out byte for byte as they lie on disk (promise P2); only this node's own objects are
encoded anew, for a destination that takes the default transfer syntax alone. Only the presentation
contexts that the files need are proposed, one for each SOP class and transfer syntax, and what the
destination accepted is looked at before the first file goes out.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from tfkt_node.delivery.statuses import Answer, NoAnswer, NoAssociation, lost, meaning_of
from tfkt_node.records import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    RETRY_DELIVERIES,
    Permanent,
    Retriable,
)
from tfkt_node.settings import Delivery, Peer, Report

Context = tuple[str, str]
"""SOP class UID and transfer syntax UID of a file."""

COMPREHENSIVE_SR, ENHANCED_SR, KEY_OBJECTS, PICTURE = (
    (str(sop_class), str(ExplicitVRLittleEndian))
    for sop_class in (
        ComprehensiveSRStorage,
        EnhancedSRStorage,
        KeyObjectSelectionDocumentStorage,
        SecondaryCaptureImageStorage,
    )
)
OBJECTS: dict[Context, str] = {
    COMPREHENSIVE_SR: "Comprehensive SR Storage",
    ENHANCED_SR: "Enhanced SR Storage",
    KEY_OBJECTS: "Key Object Selection Document Storage",
    PICTURE: "Secondary Capture Image Storage",
}
"""What this node makes, with the names that the standard gives the classes."""

DEFAULT = str(ImplicitVRLittleEndian)
"""The transfer syntax that is offered beside the own one for what this node makes: every requestor
has to (PS3.5 10.1), and some destinations take no other."""

UNREADABLE = (OSError, InvalidDicomError, AttributeError)
"""What reading a file raises that is gone, cut, or no DICOM."""


def send(
    peer: Peer, delivery: Delivery, paths: Sequence[Path], begin_within_s: float = 60.0
) -> Generator[Answer]:
    """Send files over one association; yield the answer to each as it comes, in their order.

    Ends early where the association is over, or none comes about (one NoAssociation): a file
    without an answer was not tried. begin_within_s: no file but the first is begun later than that.
    """
    contexts = [_context_of(path) for path in paths]
    wanted = dict.fromkeys(context for context in contexts if context is not None)
    if not wanted:
        yield from (lost() for _ in paths)
        return
    try:
        with _association(peer, delivery, list(wanted)) as assoc:
            until = time.monotonic() + begin_within_s
            for path, context in zip(paths, contexts, strict=True):
                answer = _send_one(assoc, path, context)
                yield answer
                # An abort is known by the answer that is missing before the library says so.
                is_over = isinstance(answer, NoAnswer) or not assoc.is_established
                if is_over or time.monotonic() > until:
                    return
    except NoAssociation as error:
        yield error
    except Permanent as error:  # none of the classes is taken
        yield from (error for _ in paths)


def longest_send_s(delivery: Delivery, begin_within_s: float) -> float:
    """Return the seconds after which `send` has come to an end, whatever the peer does."""
    calls = 3  # to connect, to associate, to release
    return begin_within_s + delivery.response_timeout_s + calls * delivery.connection_timeout_s


def echo(peer: Peer, delivery: Delivery) -> None:
    """Verify that a peer answers C-ECHO. Raises Retriable or Permanent with the likely cause."""
    with _association(peer, delivery, [(str(Verification), str(ImplicitVRLittleEndian))]) as assoc:
        status = assoc.send_c_echo().get("Status")
    if status != 0x0000:
        said = "did not answer" if status is None else f"answered 0x{status:04X}"
        raise Retriable(f"{place(peer)} {said} to C-ECHO")


def objects_for(peer: Peer, report: Report) -> tuple[Context, ...]:
    """Return what a destination is going to be sent, as the settings stand."""
    sr = ENHANCED_SR if peer.sr_class == "enhanced" else COMPREHENSIVE_SR
    return (sr, KEY_OBJECTS, PICTURE) if report.summary_picture else (sr, KEY_OBJECTS)


def probe(peer: Peer, delivery: Delivery) -> frozenset[Context]:
    """Return which of this node's objects a destination takes.

    Nothing is sent. Raises Retriable where no association comes about.
    """
    try:
        with _association(peer, delivery, list(OBJECTS)) as assoc:
            accepted = _accepted(assoc)
            return frozenset(one for one in OBJECTS if accepted & {one, (one[0], DEFAULT)})
    except Permanent:  # the answer to an association without any accepted context
        return frozenset()


def _context_of(path: Path) -> Context | None:
    """Return the context that a file needs; None where it cannot be read."""
    try:
        meta = read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except UNREADABLE:
        return None


def _send_one(assoc: Association, path: Path, context: Context | None) -> Answer:
    if context is None:
        return lost()
    accepted = _accepted(assoc)
    is_encoded_anew = context not in accepted and context in OBJECTS
    if ((context[0], DEFAULT) if is_encoded_anew else context) not in accepted:
        name = OBJECTS.get(context, "the SOP class and transfer syntax of the object")
        return Permanent(
            f"the destination does not take {name}",
            cure=_cure_for(context),
        )
    try:
        answer = assoc.send_c_store(dcmread(path) if is_encoded_anew else path)
    except RuntimeError:  # pynetdicom's word for an association that is no more
        return NoAnswer("the association ended before this object was sent")
    except UNREADABLE:
        return lost()
    status = answer.get("Status")
    return meaning_of(status, str(answer.get("ErrorComment", "")))


def _cure_for(context: Context) -> str:
    cure = f"enable the class for this AE title there, then run {RETRY_DELIVERIES}"
    if context == COMPREHENSIVE_SR:
        cure += '; or set sr_class = "enhanced" for this peer, which holds for reports to come'
    return cure


def _accepted(assoc: Association) -> set[Context]:
    return {
        (str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in assoc.accepted_contexts
    }


@contextmanager
def _association(
    peer: Peer, delivery: Delivery, contexts: Sequence[Context]
) -> Iterator[Association]:
    """Open an association that proposes these contexts, and release it at the end.

    Objects of this node are proposed in the default transfer syntax as well.

    Raises NoAssociation where none comes about, Permanent where the peer takes no context.
    """
    _keep_bytes_and_identifiers()
    ae = AE(ae_title=delivery.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = ae.acse_timeout = delivery.connection_timeout_s
    ae.dimse_timeout = delivery.response_timeout_s
    ae.network_timeout = delivery.response_timeout_s
    connected: list[bool] = []

    def on_connection(event: evt.Event) -> None:
        connected.append(True)
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    try:
        assoc = ae.associate(
            peer.host,
            peer.port,
            contexts=[build_context(*context) for context in _proposed(contexts)],
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, on_connection)],
        )
    except (OSError, UnicodeError):  # UnicodeError: a label that no name server could hold
        raise NoAssociation(f"{place(peer)}: the host name cannot be resolved") from None
    if not assoc.is_established:
        raise _why_not(peer, delivery, assoc, bool(connected))
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _proposed(contexts: Sequence[Context]) -> list[Context]:
    # In contexts of their own: the acceptor picks one of those in a context, and not the first.
    return [*contexts, *((one[0], DEFAULT) for one in contexts if one in OBJECTS)]


def _why_not(
    peer: Peer, delivery: Delivery, assoc: Association, connected: bool
) -> NoAssociation | Permanent:
    """Name the likely cause why no association came about."""
    if not connected:
        return NoAssociation(
            f"{place(peer)} cannot be reached: nothing listens there, or a firewall"
        )
    if assoc.is_rejected:
        reason = assoc.acceptor.primitive.reason_str
        return NoAssociation(
            f"{place(peer)} rejected the association ({reason.lower()}): "
            f"check its AE title {peer.ae_title!r}, and that it knows {delivery.ae_title!r}"
        )
    if assoc.rejected_contexts:
        return Permanent(
            f"{place(peer)} accepts none of the SOP classes proposed",
            cure=f"enable them for {delivery.ae_title!r} there, then run {RETRY_DELIVERIES}",
        )
    return NoAssociation(f"{place(peer)} closed the connection, or did not answer in time")


def place(peer: Peer) -> str:
    """Name a peer and where it is: every NoAssociation begins with it."""
    return f"{peer.name} ({peer.host}:{peer.port})"


def _keep_bytes_and_identifiers() -> None:
    """Make pynetdicom send files as they are, and log neither requests nor PDUs (P2, P10)."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
