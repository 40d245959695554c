"""A connection that takes in no more, and for no longer, than a PDU may need (P7).

The library believes the 32-bit length of a PDU and gathers the body in memory before anything else
is asked, and its timeouts count from byte to byte. So the limits stand below it, on the socket.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from time import monotonic

from tfkt_node.reception.negotiation import MAXIMUM_PDU_BYTES

LOGGER = logging.getLogger(__name__)

HEADER_BYTES = 6
"""Type, a reserved byte, and the length of what follows: PS3.8 sections 9.3.1 to 9.3.8."""

LONGEST_REQUEST_BYTES = 1_000_000
"""An A-ASSOCIATE-RQ with all 128 presentation contexts stays far below."""

LONGEST_DATA_BYTES = MAXIMUM_PDU_BYTES + 1024
"""What the node announces (PS3.8 annex D.1), and a little for senders that count headers too."""

_ASSOCIATE_RQ, _KNOWN_TYPES = 1, range(1, 8)


class Line(socket.socket):
    """A connected socket, on which each PDU has a longest length and a time to be whole.

    Reads must keep to PDUs as the library's do: first the header, then no more than its length; and
    no body of a type that the standard does not know. A read raises ConnectionAbortedError for a
    PDU that is too long, TimeoutError for one that is not whole pdu_timeout_s after its first byte.
    """

    def __init__(self, fileno: int, address: str, pdu_timeout_s: float) -> None:
        """Take over a connected socket by its descriptor. address: the peer's, for the log."""
        super().__init__(fileno=fileno)
        self._address = address
        self._pdu_timeout_s = pdu_timeout_s
        self._header = bytearray()
        self._body_left = 0
        self._deadline = 0.0
        self.settimeout(pdu_timeout_s)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read at most bufsize bytes of the PDU under way, or of the next one."""
        try:
            if self._header:
                self.settimeout(self._time_left_s())
            received = super().recv(bufsize, flags)
            self._follow(received)
        except (TimeoutError, ConnectionAbortedError) as error:
            LOGGER.warning("connection.cut address=%s why=%r", self._address, str(error))
            raise
        return received

    def _time_left_s(self) -> float:
        left_s = self._deadline - monotonic()
        if left_s <= 0:
            raise TimeoutError("the PDU was not whole in time")
        return left_s

    def _follow(self, received: bytes) -> None:
        """Keep count of the PDU; its header decides whether its body may come."""
        if not self._header:
            self._deadline = monotonic() + self._pdu_timeout_s
        if len(self._header) < HEADER_BYTES:
            self._header += received
            if len(self._header) < HEADER_BYTES:
                return
            self._body_left = _body_length(self._header)
        else:
            self._body_left -= len(received)
        if self._body_left == 0:
            self._header.clear()
            self.settimeout(self._pdu_timeout_s)  # which also bounds what is sent in between

    def shutdown(self, how: int) -> None:
        """Shut down, also when the peer has already reset the connection.

        The library does not close a socket whose shutdown fails, so that its descriptor would stay
        open until the garbage is collected.
        """
        with contextlib.suppress(OSError):
            super().shutdown(how)


def _body_length(header: bytearray) -> int:
    """Return how many bytes will be read after a header."""
    kind, length = struct.unpack(">BxL", header)
    if kind not in _KNOWN_TYPES:
        return 0
    longest = LONGEST_REQUEST_BYTES if kind == _ASSOCIATE_RQ else LONGEST_DATA_BYTES
    if length > longest:
        raise ConnectionAbortedError(
            f"a PDU of type {kind} may have {longest} bytes, this one has {length} bytes"
        )
    return int(length)
