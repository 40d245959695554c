"""Who may stay: no peer takes another's place by being silent or idle, or a mere connection (P7).

Connections without an association, such as probes, scanners and those that are being seen off, are
counted apart: they take no place of an association, and beyond a number the oldest goes. Senders
that are at work keep their places, be they all of one caller's: the door says who may call.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Protocol

WAITING = 64
"""Connections without an association. A sender asks for one within milliseconds."""

LEAVING = 64
"""Connections that were asked to leave and still hold a thread; beyond it none are let in."""

PARKED_S = 10.0
"""An association that has been idle for so long gives way when all places are taken."""


class Guest(Protocol):
    """A connection as seen from here."""

    idle_since: float | None
    """When its association became idle, by the monotonic clock; None while it is at work."""

    def ask_to_leave(self, why: str) -> None:
        """End it soon. Called by another thread than its own; must not block."""


class Places:
    """The places of a reception."""

    def __init__(self, maximum_associations: int) -> None:
        self._maximum = maximum_associations
        self._waiting: dict[Guest, None] = {}  # in the order of arrival
        self._leaving: set[Guest] = set()
        self._seated: set[Guest] = set()
        self._changed = threading.Condition()

    def arrive(self, guest: Guest) -> bool:
        """Count a new connection; the one that has waited longest goes when there are too many.

        Return False, with nothing counted, while too many that were to go have not gone.
        """
        with self._changed:
            if len(self._leaving) >= LEAVING:
                return False
            self._waiting[guest] = None
            oldest = next(iter(self._waiting)) if len(self._waiting) > WAITING else None
            if oldest is not None:
                del self._waiting[oldest]
                self._leaving.add(oldest)
        if oldest is not None:
            oldest.ask_to_leave("too many connections without an association")
        return True

    def seat(self, guest: Guest) -> bool:
        """Give a waiting guest a place, if need be one that another has parked in."""
        with self._changed:
            if guest not in self._waiting:
                return False
            parked = self._longest_parked() if len(self._seated) >= self._maximum else None
            if parked is not None:
                self._seated.discard(parked)
                self._leaving.add(parked)
            has_place = len(self._seated) < self._maximum
            if has_place:
                del self._waiting[guest]
                self._seated.add(guest)
        if parked is not None:
            parked.ask_to_leave("idle, and all places were taken")
        return has_place

    def _longest_parked(self) -> Guest | None:
        idle = {guest: since for guest in self._seated if (since := guest.idle_since) is not None}
        longest = min(idle, key=idle.__getitem__, default=None)
        if longest is None or monotonic() - idle[longest] < PARKED_S:
            return None
        return longest

    def unseat(self, guest: Guest) -> None:
        """Take the place back of one whose association is over; its connection may linger."""
        with self._changed:
            if guest in self._seated:
                self._seated.remove(guest)
                self._waiting[guest] = None
                self._changed.notify_all()

    def leave(self, guest: Guest) -> None:
        """Forget a connection that is closed."""
        with self._changed:
            self._seated.discard(guest)
            self._leaving.discard(guest)
            self._waiting.pop(guest, None)
            self._changed.notify_all()

    def wait_until_free(self, limit_s: float) -> None:
        """Wait until no association is left, for at most limit_s seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._seated, limit_s)

    def clear(self, limit_s: float) -> None:
        """Ask all to leave, and wait for that at most limit_s seconds."""
        with self._changed:
            guests = [*self._waiting, *self._leaving, *self._seated]
        for guest in guests:
            guest.ask_to_leave("the node is stopping")
        with self._changed:
            self._changed.wait_for(
                lambda: not (self._seated or self._waiting or self._leaving), limit_s
            )
