"""One connection, from its first byte to its end, in a thread of its own.

The thread reads, stores and answers, one thing after the other: what a sender sends ahead waits in
its connection and not in memory. It never touches the database (P7).
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from tfkt_node.reception import upper_layer
from tfkt_node.reception.arrivals import Arrival, AssociationEnded, AssociationOpened
from tfkt_node.reception.door import Door, Rejection
from tfkt_node.reception.incoming import is_uid
from tfkt_node.reception.instances import Spool
from tfkt_node.reception.line import KNOWN_TYPES, Late, Line, PduType, TooLong
from tfkt_node.reception.messages import Malformed, fragments
from tfkt_node.reception.negotiation import Offered
from tfkt_node.reception.places import Places
from tfkt_node.reception.services import Services, Store
from tfkt_node.records import AssociationEnd
from tfkt_node.settings import Reception

LOGGER = logging.getLogger(__name__)

NO_PLACE = Rejection(2, 3, 2, "as many associations are open as reception.maximum_associations")

MOST_TOLD = 10
"""Abstract syntaxes that a line of the log names."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the conversations of a reception share."""

    settings: Reception
    offered: Offered
    door: Door
    spool: Spool
    places: Places
    offer: Callable[[Arrival], None]
    clock: Callable[[], datetime]


class Conversation:
    """A peer's connection, and its association if it comes to one."""

    def __init__(self, line: Line, means: Means) -> None:
        self.idle_since: float | None = None
        self._line = line
        self._means = means
        self._waited_s = 0.0  # for what the peer sends
        self._association_id = uuid.uuid4().hex
        self._calling_ae = ""
        self._asked_to_leave = ""
        self._said_last_word = False

    def run(self) -> None:
        """Talk until either side has had enough."""
        try:
            if self._comes_from_a_sender() and (terms := self._greet()):
                self._be_open(terms)
        except OSError:
            pass  # gone without an association: a probe
        except Exception as error:  # noqa: BLE001 - values must not reach a log
            LOGGER.error("connection.failed error=%s", type(error).__name__)
        finally:
            if self._said_last_word:
                self._line.see_off()
            self._line.close()
            self._means.places.leave(self)

    def ask_to_leave(self, why: str) -> None:
        """End the conversation soon. Any thread may ask."""
        self._asked_to_leave = why
        if self.idle_since is not None:  # else an answer may be under way
            with contextlib.suppress(OSError):
                self._line.send_at_once(upper_layer.abort_pdu(upper_layer.BY_PROVIDER))
        self._line.hang_up()

    # ------------------------------------------------------------------ before the association

    def _comes_from_a_sender(self) -> bool:
        """Look at the address before anything is read. May take long: names are looked up."""
        try:
            if self._means.door.knows(self._line.address):
                return True
            why = "no sender calls from there"
        except Exception as error:  # noqa: BLE001 - a fault must not let anybody in
            why = f"the check failed with {type(error).__name__}"
        LOGGER.info("connection.refused address=%s why=%r", self._line.address, why)
        return False

    def _greet(self) -> upper_layer.Terms | None:
        """Take the request for an association, and answer it unless the answer is yes."""
        request = self._await_request()
        if request is None:
            return None
        self._calling_ae = request.calling_ae
        rejection = request.unsupported or self._turned_away(request)
        if rejection is None and not self._means.places.seat(self):
            rejection = NO_PLACE
        if rejection is None:
            terms = upper_layer.agree(request, self._means.offered)
            self._tell_rejected(request, terms)
            return terms
        LOGGER.warning(
            "association.rejected calling=%r called=%r address=%s why=%r",
            request.calling_ae,
            request.called_ae,
            self._line.address,
            rejection.why,
        )
        self._say_last(upper_layer.rejection_pdu(rejection))
        return None

    def _await_request(self) -> upper_layer.Request | None:
        """Read the first PDU. What is no request is answered as in state 2: PS3.8 table 9-10."""
        try:
            pdu = self._line.read_pdu(self._means.settings.socket_timeout_s)
            if pdu is None or pdu.kind == PduType.ABORT:
                return None
            if pdu.kind == PduType.ASSOCIATE_RQ:
                return upper_layer.decode_request(pdu.body)
            self._abort(f"a PDU of type {pdu.kind} before an association")
        except (TooLong, ValueError) as error:
            self._abort(str(error))
        except Late:
            pass  # the line has said so
        return None

    def _turned_away(self, request: upper_layer.Request) -> Rejection | None:
        try:
            return self._means.door.rejection(
                request.calling_ae, request.called_ae, self._line.address
            )
        except Exception as error:  # noqa: BLE001 - a fault must not let anybody in
            return Rejection(2, 1, 1, f"the check failed with {type(error).__name__}")

    def _tell_rejected(self, request: upper_layer.Request, terms: upper_layer.Terms) -> None:
        """Say which presentation contexts were rejected: the sender may fail a whole study."""
        if not terms.rejected:
            return
        named = dict.fromkeys(
            _named(request.proposed[context_id].abstract_syntax, result)
            for context_id, result in terms.rejected.items()
        )
        told = list(named)[:MOST_TOLD]
        if len(named) > len(told):
            told.append(f"and {len(named) - len(told)} more")
        LOGGER.warning(
            "contexts.rejected calling=%r address=%s rejected=%d proposed=%d abstract_syntaxes=%r",
            request.calling_ae,
            self._line.address,
            len(terms.rejected),
            len(request.proposed),
            ", ".join(told),
        )

    # ------------------------------------------------------------------ the association

    def _be_open(self, terms: upper_layer.Terms) -> None:
        """Serve the association, and tell of its beginning and its end."""
        means = self._means
        services = Services(
            terms,
            # Twice the largest instance, so that one that is merely too large gets its 0xA700.
            Store(
                means.spool,
                2_000_000 * means.settings.maximum_instance_mb,
                means.offer,
                means.clock,
            ),
            self._line.send,
            calling_ae=self._calling_ae,
            association_id=self._association_id,
        )
        means.offer(
            AssociationOpened(
                association_id=self._association_id,
                calling_ae=self._calling_ae,
                called_ae=means.settings.ae_title,
                address=self._line.address,
                at=means.clock(),
            )
        )
        how = AssociationEnd.ABORTED
        try:
            self._line.send(terms.acceptance)
            how = self._serve(services)
        except (Malformed, TooLong) as error:
            self._abort(str(error), upper_layer.INVALID_PARAMETER)
        except Late as error:
            self._abort(str(error), upper_layer.NOT_SPECIFIED)
        except OSError:
            if not self._asked_to_leave:
                how = AssociationEnd.LOST
        finally:
            services.discard()
            means.offer(AssociationEnded(self._association_id, how, means.clock()))
            is_whole = how is AssociationEnd.RELEASED and not services.unfinished
            LOGGER.log(
                logging.INFO if is_whole else logging.WARNING,
                "association.ended calling=%r address=%s how=%s stored=%d duplicates=%d "
                "refused=%d unfinished=%d waited_s=%.6f write_s=%.6f sync_s=%.6f why=%r",
                self._calling_ae,
                self._line.address,
                how.value,
                services.stored,
                services.duplicates,
                services.refused,
                services.unfinished,
                self._waited_s,
                services.write_s,
                services.sync_s,
                self._asked_to_leave,
            )

    def _serve(self, services: Services) -> AssociationEnd:
        """Take PDUs until the association ends; return how. Raises Malformed, Cut, OSError."""
        while True:
            self.idle_since = began = monotonic()
            pdu = self._line.read_pdu(self._means.settings.network_timeout_s)
            self.idle_since = None
            self._waited_s += monotonic() - began
            if pdu is None:
                self._abort("idle for too long")
                return AssociationEnd.ABORTED
            if pdu.kind == PduType.P_DATA:
                for fragment in fragments(pdu.body):
                    services.take(fragment)
            elif pdu.kind == PduType.RELEASE_RQ:
                self._say_last(upper_layer.RELEASE_RP)
                return AssociationEnd.RELEASED
            else:
                if pdu.kind != PduType.ABORT:
                    self._abort(f"an unexpected PDU of type {pdu.kind}", _unexpected(pdu.kind))
                return AssociationEnd.ABORTED

    def _abort(self, why: str, reason: int | None = None) -> None:
        """Say that and why it ends.

        reason: of an abort by the provider; None: none by the provider, but by the user: for a
        peer that has no association, and where the node alone wants it.
        """
        LOGGER.warning(
            "association.aborted calling=%r address=%s why=%r",
            self._calling_ae,
            self._line.address,
            why,
        )
        by = upper_layer.BY_USER if reason is None else upper_layer.BY_PROVIDER
        self._say_last(upper_layer.abort_pdu(by, reason or 0))

    def _say_last(self, word: bytes) -> None:
        self._means.places.unseat(self)  # first: who hears it may call again at once
        with contextlib.suppress(OSError):
            self._line.send(word)
            self._said_last_word = True


def _named(abstract_syntax: str, result: int) -> str:
    """Name what was rejected for the log; what is no UID may be anything (P10)."""
    name = abstract_syntax if is_uid(abstract_syntax) else "no UID"
    return name if result == upper_layer.NO_ABSTRACT_SYNTAX else f"{name} (transfer syntax)"


def _unexpected(kind: int) -> int:
    known = kind in KNOWN_TYPES
    return upper_layer.UNEXPECTED_PDU if known else upper_layer.UNRECOGNISED_PDU
