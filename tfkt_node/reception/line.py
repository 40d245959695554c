"""A connection of which whole PDUs are read: none longer, and none slower, than agreed (P7).

A length is not believed and a peer is not waited for: each PDU has a longest length and a time to
be whole, so that what a connection costs is bounded before anything is made of what it says.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from enum import IntEnum
from time import monotonic
from typing import NamedTuple

LOGGER = logging.getLogger(__name__)

HEADER = struct.Struct(">BxL")
"""Type, a reserved byte, and the length of what follows: PS3.8 sections 9.3.1 to 9.3.8."""

MAXIMUM_PDU_BYTES = 128 * 1024
"""Large PDUs cut the receiver's CPU time by a third; a sender may use smaller ones."""

LONGEST_REQUEST_BYTES = 256 * 1024
"""An A-ASSOCIATE-RQ with 128 presentation contexts of every transfer syntax stays below."""

LONGEST_DATA_BYTES = MAXIMUM_PDU_BYTES + 1024
"""What the node announces (PS3.8 annex D.1), and a little for senders that count headers too."""

BUFFER_BYTES = 2 * MAXIMUM_PDU_BYTES
"""Read at once, where a peer sends so much: PDUs are often far smaller than allowed."""

LOOK_S = 0.25
"""How long the system waits for bytes before the clock is looked at again."""

FAREWELL_S = 2.0
"""How long a peer may take to close after the last word was sent to it."""

LONGEST_TIMEOUT_S = 1e6
"""Longer is said to no system."""


class PduType(IntEnum):
    """Types of PDUs: PS3.8 section 9.3.1."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    P_DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


KNOWN_TYPES = frozenset(PduType)


class Cut(Exception):
    """What a peer is sending is not waited for."""


class TooLong(Cut):
    """A PDU is longer than allowed."""


class Late(Cut):
    """A PDU was not whole in time."""


class Pdu(NamedTuple):
    """A PDU as it came. body: without the header; it is overwritten by the next read.

    The body of a type that the standard does not know is not read: its length may be anything.
    """

    kind: int
    body: memoryview


class Line:
    """One end of a connection. One thread reads; another may hang up on it."""

    def __init__(self, connection: socket.socket, address: str, pdu_timeout_s: float) -> None:
        """Take over a connected socket. address: the peer's, for the log."""
        self.address = address
        self._socket = connection
        self._pdu_timeout_s = pdu_timeout_s
        self._buffer = memoryview(bytearray())  # a connection that says nothing takes no memory
        self._start = self._end = 0
        # Timeouts of the system: those of the library cost three system calls a read.
        self._socket.settimeout(None)
        for option, limit_s in ((socket.SO_RCVTIMEO, LOOK_S), (socket.SO_SNDTIMEO, pdu_timeout_s)):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _timeval(limit_s))

    def read_pdu(self, wait_s: float) -> Pdu | None:
        """Read the next PDU, or return None when the peer says nothing for wait_s seconds.

        Raises TooLong for a PDU that is longer than allowed, Late for one that is not whole
        pdu_timeout_s after its first byte (a moment later, see LOOK_S), and OSError when the
        connection is gone.
        """
        if self._start == self._end:
            try:
                self._receive(monotonic() + wait_s)
            except Late:
                return None
        try:
            deadline = monotonic() + self._pdu_timeout_s
            self._gather(HEADER.size, deadline)
            kind, declared = HEADER.unpack_from(self._buffer, self._start)
            length = _checked(kind, declared)
            self._gather(HEADER.size + length, deadline)
        except Cut as error:
            LOGGER.warning("connection.cut address=%s why=%r", self.address, str(error))
            raise
        body = self._start + HEADER.size
        self._start = body + length
        return Pdu(kind, self._buffer[body : self._start])

    def _gather(self, size: int, deadline: float) -> None:
        """Have so many bytes in the buffer, in one piece."""
        while self._end - self._start < size:
            if size > len(self._buffer) - self._start:
                self._make_room(size)
            self._receive(deadline)

    def _make_room(self, size: int) -> None:
        """Move what is there to the front of a buffer that holds a PDU of this size."""
        there = self._buffer[self._start : self._end]
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        self._buffer[: len(there)] = there
        self._start, self._end = 0, len(there)

    def _receive(self, deadline: float) -> None:
        """Take in what has come, at least a byte. Raises Late, OSError."""
        if not self._buffer:
            self._buffer = memoryview(bytearray(BUFFER_BYTES))
        if self._start == self._end:
            self._start = self._end = 0
        while True:
            if monotonic() > deadline:
                raise Late("the PDU was not whole in time")
            with contextlib.suppress(BlockingIOError):  # nothing came within LOOK_S
                received = self._socket.recv_into(self._buffer[self._end :])
                break
        if not received:
            raise ConnectionResetError("the peer has hung up")
        self._end += received

    def send(self, data: bytes) -> None:
        """Send bytes. Raises OSError when the peer is gone or does not take them in time."""
        self._socket.sendall(data)

    def send_at_once(self, data: bytes) -> None:
        """Send a few bytes without waiting. Raises OSError when the peer does not take them now."""
        self._socket.send(data, socket.MSG_DONTWAIT)

    def hang_up(self) -> None:
        """End the connection at once: whoever reads or writes it finds it gone."""
        with contextlib.suppress(OSError):  # the peer may have been first
            self._socket.shutdown(socket.SHUT_RDWR)

    def see_off(self) -> None:
        """Let the peer hear the last word, and close first, as PS3.8 section 9.2 has it.

        A socket that is closed with bytes unread would take the word back.
        """
        deadline = monotonic() + FAREWELL_S
        with contextlib.suppress(OSError, Late):
            while True:
                self._start = self._end = 0
                self._receive(deadline)

    def close(self) -> None:
        """Give the socket back. By the thread that reads, last of all."""
        self.hang_up()
        self._socket.close()


def encode_pdu(kind: PduType, *parts: bytes) -> bytes:
    """Encode a PDU."""
    body = b"".join(parts)
    return HEADER.pack(kind, len(body)) + body


def _timeval(seconds: float) -> bytes:
    """Encode C's struct timeval; zero would mean no limit, and some systems have a longest."""
    seconds = min(seconds, LONGEST_TIMEOUT_S)
    whole = int(seconds)
    return struct.pack("@ll", whole, max(1, int(1e6 * (seconds - whole))))


def _checked(kind: int, length: int) -> int:
    """Return how many bytes are to be read after a header."""
    if kind not in KNOWN_TYPES:
        return 0
    longest = LONGEST_REQUEST_BYTES if kind == PduType.ASSOCIATE_RQ else LONGEST_DATA_BYTES
    if length > longest:
        raise TooLong(f"a PDU of type {kind} may have {longest} bytes, this one has {length} bytes")
    return length
