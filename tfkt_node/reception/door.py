"""Decide who may call: default deny (P11), and say why not.

On loopback any caller is admitted; beyond it a caller is admitted when its AE title *and* its
address match one entry of `[[peers]]` with `send = true`. An AE title is a label, not a proof:
the network is what keeps strangers out.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic

from tfkt_node.settings import Peer, Reception, is_loopback

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], Iterable[str]]

LOOKED_UP_S = 30.0
"""How long the addresses of a name are believed, or that it has none."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 section 9.3.4): result, source, diagnostic, and why, for the log."""

    result: int
    source: int
    diagnostic: int
    why: str


WRONG_CALLED_TITLE = Rejection(1, 1, 7, "called AE title not recognised")
UNKNOWN_CALLER = Rejection(1, 1, 3, "calling AE title not among the peers with send = true")
WRONG_NETWORK = Rejection(1, 1, 3, "calling AE title is known, but not from this address")


def resolve(host: str) -> list[str]:
    """Look up the addresses of a host; none when it is not known or is no name."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):  # the latter for a label that is empty or too long
        return []


class Door:
    """Who may open an association."""

    def __init__(
        self,
        settings: Reception,
        peers: Sequence[Peer],
        resolve: Resolve = resolve,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._called_ae = settings.ae_title
        self._anyone = is_loopback(settings.host)
        # Networks first: who comes from one does not wait for the names of others.
        self._senders = sorted((peer for peer in peers if peer.send), key=lambda p: not p.network)
        self._resolve = resolve
        self._seconds = seconds
        self._looking_up = threading.Lock()
        self._looked_up: dict[str, tuple[float, frozenset[Address]]] = {}

    def knows(self, address: str) -> bool:
        """Tell whether a caller from an address may be any sender, whatever its title.

        May take long: it looks up the names of senders that are listed without a network, at most
        once in LOOKED_UP_S however many ask.
        """
        return self._anyone or any(
            self._comes_from(peer, _plain(address)) for peer in self._senders
        )

    def rejection(self, calling_ae: str, called_ae: str, address: str) -> Rejection | None:
        """Return why a caller is turned away, or None to let it in. Case of titles counts."""
        if called_ae.strip() != self._called_ae:
            return WRONG_CALLED_TITLE
        if self._anyone:
            return None
        known = [peer for peer in self._senders if peer.ae_title == calling_ae.strip()]
        if not known:
            return UNKNOWN_CALLER
        if any(self._comes_from(peer, _plain(address)) for peer in known):
            return None
        return WRONG_NETWORK

    def _comes_from(self, peer: Peer, address: Address) -> bool:
        if peer.network:
            return address in ipaddress.ip_network(peer.network, strict=False)
        return address in self._addresses_of(peer.host)

    def _addresses_of(self, host: str) -> frozenset[Address]:
        if (known := self._known(host)) is None:
            with self._looking_up:  # a name server that is slow is not asked by a crowd
                if (known := self._known(host)) is None:
                    known = frozenset(map(_plain, self._resolve(host)))
                    self._looked_up[host] = self._seconds() + LOOKED_UP_S, known
        return known

    def _known(self, host: str) -> frozenset[Address] | None:
        until, addresses = self._looked_up.get(host, (0.0, None))
        return addresses if self._seconds() < until else None


def _plain(address: str) -> Address:
    """Parse an address; a dual-stack socket reports IPv4 callers as ::ffff:a.b.c.d."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        return parsed.ipv4_mapped
    return parsed
