"""The Storage SCP: associations, and the answer to each C-STORE.

The handler stores and answers; it decodes nothing, never touches the database and never shows a
value in a log (P1, P7, P10). Who may call is decided by the door (P11).
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import _config, evt
from pynetdicom.pdu_primitives import A_P_ABORT

from tfkt_node.reception.door import Door, Rejection
from tfkt_node.reception.indexing import Arrival, AssociationEnded, AssociationOpened
from tfkt_node.reception.instances import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_CLASS,
    ReceivedInstance,
    Spool,
)
from tfkt_node.reception.line import Line
from tfkt_node.reception.negotiation import application_entity
from tfkt_node.records import AssociationEnd, Refused
from tfkt_node.settings import Reception

LOGGER = logging.getLogger(__name__)

SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110


@dataclass(slots=True)
class _Visit:
    """One association: who calls, and what has become of its instances so far."""

    association_id: str
    calling_ae: str
    address: str
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    lost: bool = False
    message_bytes: int = 0


class StorageSCP:
    """The server. start() listens; stop() ends it cleanly.

    offer: takes each arrival over, at once and without failing. decodable: transfer syntaxes that
    the scorer can decode.
    """

    def __init__(  # noqa: PLR0913 - wired in one place, each by name
        self,
        settings: Reception,
        door: Door,
        spool: Spool,
        offer: Callable[[Arrival], None],
        *,
        decodable: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._door = door
        self._spool = spool
        self._offer = offer
        self._clock = clock
        self._ae = application_entity(settings, decodable)
        self._server: Any = None
        self._visits: dict[Any, _Visit] = {}
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        """The port that is listened on: the system's choice when the setting is 0."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen. Raises OSError when the address cannot be bound."""
        # Process-wide switches of the library, which by default prints identifiers at INFO (P10)
        # and formats every message for its log even when nothing is printed.
        _config.LOG_REQUEST_IDENTIFIERS = False
        _config.LOG_RESPONSE_IDENTIFIERS = False
        _config.LOG_HANDLER_LEVEL = "none"
        self._server = self._ae.start_server(
            (self._settings.host, self._settings.port),
            block=False,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._guard),
                (evt.EVT_CONN_CLOSE, self._forget_probe),
                (evt.EVT_REQUESTED, self._check_door),
                (evt.EVT_ESTABLISHED, self._open),
                (evt.EVT_C_ECHO, lambda _: SUCCESS),
                (evt.EVT_C_STORE, self._answer),
                (evt.EVT_DATA_RECV, self._limit_size),
                (evt.EVT_DIMSE_RECV, self._message_complete),
                (evt.EVT_ACSE_RECV, self._note_loss),
                (evt.EVT_RELEASED, self._released),
                (evt.EVT_ABORTED, self._aborted),
            ],
        )
        LOGGER.info("reception.listening host=%s port=%d", self._settings.host, self.port)

    def stop(self, limit_s: float) -> None:
        """Accept no more, let open associations end for at most limit_s seconds, abort the rest."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        deadline = time.monotonic() + limit_s
        while server.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        self._ae.shutdown()
        self.end_dead_associations()
        LOGGER.info("reception.stopped")

    def end_dead_associations(self) -> None:
        """Record as lost every association whose thread ended without a word of the library."""
        with self._lock:
            dead = [assoc for assoc in self._visits if not assoc.is_alive()]
        for assoc in dead:
            self._end(assoc, AssociationEnd.LOST)

    # ------------------------------------------------------------------ limits

    def _guard(self, event: Any) -> None:
        """Bound what the connection takes in, and hang up when it comes from a stranger.

        The look at the address has a thread of its own: names may have to be looked up, and all
        other callers wait while this handler runs.
        """
        transport, address = event.assoc.dul.socket, event.address[0]
        line = Line(transport.socket.detach(), address, self._settings.socket_timeout_s)
        transport.socket = line
        threading.Thread(
            target=self._hang_up_on_stranger, args=(line, address), daemon=True
        ).start()

    def _hang_up_on_stranger(self, line: Line, address: str) -> None:
        try:
            if self._door.knows(address):
                return
            why = "no sender calls from there"
        except Exception as error:  # noqa: BLE001 - a fault must not let anybody in
            why = f"the check failed with {type(error).__name__}"
        LOGGER.info("connection.refused address=%s why=%r", address, why)
        line.shutdown(socket.SHUT_RDWR)

    def _limit_size(self, event: Any) -> None:
        """Abort a message that has no end: the library gathers it in memory until then.

        Twice the largest instance, so that one that is merely too large gets its 0xA700.
        """
        visit = self._visits.get(event.assoc)
        if visit is None:
            return
        visit.message_bytes += len(event.data)
        if visit.message_bytes > 2_000_000 * self._settings.maximum_instance_mb:
            LOGGER.warning("association.aborted calling=%r why='endless message'", visit.calling_ae)
            event.assoc.abort()

    def _message_complete(self, event: Any) -> None:
        if visit := self._visits.get(event.assoc):
            visit.message_bytes = 0

    @staticmethod
    def _forget_probe(event: Any) -> None:
        """Let go of a connection that closed before it asked for an association.

        The library would hold its thread, and its place among maximum_associations, until the ACSE
        timeout: a load balancer's probes would shut the modalities out.
        """
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)  # what it takes for that timeout

    # ------------------------------------------------------------------ associations

    def _check_door(self, event: Any) -> None:
        request = event.assoc.requestor.primitive
        calling_ae, address = request.calling_ae_title, event.assoc.requestor.address
        try:
            rejection = self._door.rejection(calling_ae, request.called_ae_title, address)
        except Exception as error:  # noqa: BLE001 - the library would let the caller in
            rejection = Rejection(2, 1, 1, f"the check failed with {type(error).__name__}")
        if rejection is None:
            return
        LOGGER.warning(
            "association.rejected calling=%r called=%r address=%s why=%r",
            calling_ae,
            request.called_ae_title,
            address,
            rejection.why,
        )
        event.assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        event.assoc.kill()  # waits until the answer is out, before the socket is closed

    def _open(self, event: Any) -> None:
        requestor = event.assoc.requestor
        visit = _Visit(uuid.uuid4().hex, requestor.ae_title.strip(), requestor.address)
        with self._lock:
            self._visits[event.assoc] = visit
        self._offer(
            AssociationOpened(
                association_id=visit.association_id,
                calling_ae=visit.calling_ae,
                called_ae=self._settings.ae_title,
                address=visit.address,
                at=self._clock(),
            )
        )
        self.end_dead_associations()

    def _note_loss(self, event: Any) -> None:
        if isinstance(event.primitive, A_P_ABORT) and event.assoc in self._visits:
            self._visits[event.assoc].lost = True

    def _released(self, event: Any) -> None:
        self._end(event.assoc, AssociationEnd.RELEASED)

    def _aborted(self, event: Any) -> None:
        visit = self._visits.get(event.assoc)
        lost = visit is not None and visit.lost
        self._end(event.assoc, AssociationEnd.LOST if lost else AssociationEnd.ABORTED)

    def _end(self, assoc: Any, how: AssociationEnd) -> None:
        with self._lock:
            visit = self._visits.pop(assoc, None)
        if visit is None:
            return
        self._offer(AssociationEnded(visit.association_id, how, self._clock()))
        LOGGER.info(
            "association.ended calling=%r address=%s how=%s stored=%d duplicates=%d refused=%d",
            visit.calling_ae,
            visit.address,
            how.value,
            visit.stored,
            visit.duplicates,
            visit.refused,
        )

    # ------------------------------------------------------------------ C-STORE

    def _answer(self, event: Any) -> Dataset | int:
        """Answer a C-STORE: 0x0000 only once the instance is on the disk (P1)."""
        visit = self._visits[event.assoc]
        try:
            stored, is_new = self._spool.store(self._received(event, visit))
        except Refused as refused:
            visit.refused += 1
            LOGGER.warning(
                "instance.refused calling=%r status=0x%04X why=%r",
                visit.calling_ae,
                refused.status,
                str(refused),
            )
            return _failure(refused.status, str(refused))
        except Exception as error:  # noqa: BLE001 - the library would print it, values and all
            visit.refused += 1
            LOGGER.error("instance.failed error=%s", type(error).__name__)
            return _failure(PROCESSING_FAILURE, "Internal error")
        visit.stored += is_new
        visit.duplicates += not is_new
        self._offer(stored)
        return SUCCESS

    def _received(self, event: Any, visit: _Visit) -> ReceivedInstance:
        request = event.request
        sop_class_uid = str(request.AffectedSOPClassUID)
        if sop_class_uid != event.context.abstract_syntax:
            raise Refused("SOP Class is not that of the context", DOES_NOT_MATCH_CLASS)
        if request.DataSet is None:
            raise Refused("There is no data set", CANNOT_UNDERSTAND)
        return ReceivedInstance(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            dataset=request.DataSet.getbuffer(),
            calling_ae=visit.calling_ae,
            received_at=self._clock(),
            association_id=visit.association_id,
        )


def _failure(status: int, comment: str) -> Dataset:
    """Make a failure response. comment: Error Comment (0000,0902), LO, no identifier."""
    response = Dataset()
    response.Status = status
    response.ErrorComment = comment[:64]
    return response
