"""What is done with the messages of an association: C-ECHO answered, C-STORE stored and answered.

A data set goes to the disk as it comes. Nothing of it is decoded, and no value of it is shown in a
log (P10).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from tfkt_node.reception.incoming import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_CLASS,
    Announced,
    Incoming,
    new_buffer,
)
from tfkt_node.reception.instances import Spool
from tfkt_node.reception.messages import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    LONGEST_COMMAND_BYTES,
    RESPONSE,
    Command,
    Fragment,
    Malformed,
    command_pdus,
    decode_command,
    encode_response,
)
from tfkt_node.reception.negotiation import VERIFICATION
from tfkt_node.reception.upper_layer import Terms
from tfkt_node.records import Refused, StoredInstance

LOGGER = logging.getLogger(__name__)

SUCCESS, PROCESSING_FAILURE = 0x0000, 0x0110
CLASS_NOT_SUPPORTED, UNRECOGNISED_OPERATION = 0x0122, 0x0211


@dataclass(frozen=True, slots=True)
class Store:
    """Where instances go. longest_bytes: a data set that is longer has no end."""

    spool: Spool
    longest_bytes: int
    offer: Callable[[StoredInstance], None]
    clock: Callable[[], datetime]


@dataclass(slots=True)
class _Message:
    """A message whose data set is coming in. refused: why nothing of it will be kept."""

    request: Command
    context_id: int
    incoming: Incoming | None = None
    refused: Refused | None = None
    received_bytes: int = 0

    @contextlib.contextmanager
    def failures_are_answered(self) -> Iterator[None]:
        """Let a failure end the instance, and not the association."""
        try:
            yield
        except Refused as refused:
            self.refused = refused
        except Exception as error:  # noqa: BLE001 - the sender is told, values reach no log
            LOGGER.error("instance.failed error=%s", type(error).__name__)
            self.refused = Refused("Internal error", PROCESSING_FAILURE)
        if self.refused is not None:
            self.discard()

    def discard(self) -> None:
        if self.incoming is not None:
            self.incoming.discard()
            self.incoming = None


class Services:
    """The services of one association, for the thread that reads it.

    send: sends PDUs to the peer. Its errors come through. The counts are of instances; write_s and
    sync_s are the seconds that those kept have taken, see Incoming.
    """

    def __init__(
        self,
        terms: Terms,
        store: Store,
        send: Callable[[bytes], None],
        *,
        calling_ae: str,
        association_id: str,
    ) -> None:
        self.stored = self.duplicates = self.refused = 0
        self.write_s = self.sync_s = 0.0
        self._terms = terms
        self._store = store
        self._send = send
        self._calling_ae = calling_ae
        self._association_id = association_id
        self._command = bytearray()
        self._buffer = new_buffer()
        self._message: _Message | None = None

    @property
    def unfinished(self) -> int:
        """Instances of which only the beginning has come: 0 or 1."""
        return int(self._message is not None and self._message.request.field == C_STORE_RQ)

    def discard(self) -> None:
        """Leave nothing of a message that will not be completed."""
        if self._message is not None:
            self._message.discard()

    def take(self, fragment: Fragment) -> None:
        """Take the next part of a message; the last one is answered. Raises Malformed."""
        message = self._message
        if fragment.context_id not in self._terms.contexts:
            raise Malformed("a fragment for a context that was not accepted")
        if fragment.is_command:
            if message is not None:
                raise Malformed("a command set within a data set")
            self._command += fragment.data
            if len(self._command) > LONGEST_COMMAND_BYTES:
                raise Malformed("a command set without end")
            if fragment.is_last:
                command, self._command = bytes(self._command), bytearray()
                self._begin(decode_command(command), fragment.context_id)
        elif message is None or message.context_id != fragment.context_id:
            raise Malformed("a data set without its command set")
        else:
            self._take_data(message, fragment.data)
            if fragment.is_last:
                self._message = None
                self._finish(message)

    def _begin(self, request: Command, context_id: int) -> None:
        if request.field & RESPONSE:
            raise Malformed("a response that nobody waits for")
        if request.has_data_set:
            self._message = message = _Message(request, context_id)
            with message.failures_are_answered():
                announced = self._announced(request, context_id)
                message.incoming = Incoming(self._store.spool, announced, self._buffer)
        elif request.field == C_ECHO_RQ:
            self._answer(request, context_id, SUCCESS)
        elif request.field == C_STORE_RQ:
            self._refuse(request, context_id, _no_data_set())
        elif request.field != C_CANCEL_RQ:
            self._refuse(request, context_id, _not_provided())

    def _announced(self, request: Command, context_id: int) -> Announced:
        """Return what is known of an instance that will come. Raises Refused where none will."""
        if request.field != C_STORE_RQ:
            raise _not_provided()
        context = self._terms.contexts[context_id]
        if context.abstract_syntax == VERIFICATION:
            raise Refused("This context is for C-ECHO alone", CLASS_NOT_SUPPORTED)
        if request.sop_class_uid != context.abstract_syntax:
            raise Refused("SOP Class is not that of the context", DOES_NOT_MATCH_CLASS)
        return Announced(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=context.transfer_syntax,
            calling_ae=self._calling_ae,
            association_id=self._association_id,
        )

    def _take_data(self, message: _Message, data: memoryview) -> None:
        """Write a part of a data set. One that is refused is read to its end, if it has one."""
        message.received_bytes += len(data)
        if message.received_bytes > self._store.longest_bytes:
            raise Malformed("a data set without end")
        if message.incoming is not None:
            with message.failures_are_answered():
                message.incoming.write(data)

    def _finish(self, message: _Message) -> None:
        """Answer a C-STORE: 0x0000 only once the instance is on the disk (P1)."""
        if (incoming := message.incoming) is not None:
            with message.failures_are_answered():
                if not message.received_bytes:
                    raise _no_data_set()
                stored, is_new = incoming.keep(self._store.clock())
                self.stored += is_new
                self.duplicates += not is_new
                self.write_s += incoming.write_s
                self.sync_s += incoming.sync_s
                self._store.offer(stored)
        if message.refused is not None:
            self._refuse(message.request, message.context_id, message.refused)
        else:
            self._answer(message.request, message.context_id, SUCCESS)

    def _refuse(self, request: Command, context_id: int, refused: Refused) -> None:
        is_instance = request.field == C_STORE_RQ
        self.refused += is_instance
        LOGGER.warning(
            "%s.refused calling=%r status=0x%04X why=%r",
            "instance" if is_instance else "operation",
            self._calling_ae,
            refused.status,
            str(refused),
        )
        self._answer(request, context_id, refused.status, str(refused))

    def _answer(self, request: Command, context_id: int, status: int, comment: str = "") -> None:
        response = encode_response(request, status, comment)
        self._send(command_pdus(context_id, response, self._terms.maximum_pdu_bytes))


def _no_data_set() -> Refused:
    return Refused("There is no data set", CANNOT_UNDERSTAND)


def _not_provided() -> Refused:
    return Refused("This operation is not provided", UNRECOGNISED_OPERATION)
