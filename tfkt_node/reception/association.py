"""The Storage SCP: it listens, and has each connection served by a conversation of its own.

Who may call is decided by the door (P11), how many may stay by the places (P7).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from tfkt_node.reception.arrivals import Arrival
from tfkt_node.reception.conversation import Conversation, Means
from tfkt_node.reception.door import Door
from tfkt_node.reception.instances import Spool
from tfkt_node.reception.line import Line
from tfkt_node.reception.negotiation import offered
from tfkt_node.reception.places import Places
from tfkt_node.settings import Reception

LOGGER = logging.getLogger(__name__)

BACKLOG = 128
"""Connections that the system holds ready while others are accepted."""

LOOK_S = 1.0
"""How often the listening thread looks whether it should stop, where nothing wakes it."""

LEAVE_S = 5.0
"""How long the end of associations that are aborted may take: an instance is being synced."""


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
        self._places = Places(settings.maximum_associations)
        self._means = Means(
            settings=settings,
            offered=offered(settings, decodable),
            door=door,
            spool=spool,
            places=self._places,
            offer=offer,
            clock=clock,
        )
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="reception", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on: the system's choice when the setting is 0."""
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Listen. Raises OSError when the address cannot be bound."""
        host = self._means.settings.host
        self._listener = socket.create_server(
            (host, self._means.settings.port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
        self._listener.settimeout(LOOK_S)
        self._thread.start()
        LOGGER.info("reception.listening host=%s port=%d", host, self.port)

    def stop(self, limit_s: float) -> None:
        """Accept no more, let open associations end for at most limit_s seconds, abort the rest."""
        if self._listener is None:
            return
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, where the system does
        self._thread.join()
        self._listener.close()
        self._listener = None
        self._places.wait_until_free(limit_s)
        self._places.clear(LEAVE_S)
        LOGGER.info("reception.stopped")

    def _listen(self) -> None:
        """Accept connections until told to stop; nothing that a peer does happens here."""
        assert self._listener is not None
        while not self._stopping.is_set():
            try:
                connection, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self._stopping.is_set():
                    name = errno.errorcode.get(error.errno or 0, "")
                    LOGGER.warning("reception.accept_failed error=%s", name)
                    self._stopping.wait(0.1)  # out of descriptors: some may come back
                continue
            self._welcome(connection, address[0])

    def _welcome(self, connection: socket.socket, address: str) -> None:
        """Give a connection a thread of its own. Whatever fails ends this connection alone."""
        conversation = None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Line(connection, address, self._means.settings.socket_timeout_s)
            conversation = Conversation(line, self._means)
            if self._places.arrive(conversation):
                threading.Thread(target=conversation.run, name="conversation", daemon=True).start()
                return
            why = "too many connections are on their way out"
        except Exception as error:  # noqa: BLE001 - the next peer is to be heard
            why = type(error).__name__
            if conversation is not None:
                self._places.leave(conversation)
        LOGGER.warning("connection.refused address=%s why=%r", address, why)
        connection.close()
