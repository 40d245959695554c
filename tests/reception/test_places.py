"""Who gives way to whom."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import monotonic

import pytest

from tfkt_node.reception.places import LEAVING, PARKED_S, WAITING, Places


@dataclass(eq=False)
class Guest:
    """A guest who has been idle for so many seconds; None while at work."""

    idle_s: float | None = None
    asked: list[str] = field(default_factory=list)

    @property
    def idle_since(self) -> float | None:
        return None if self.idle_s is None else monotonic() - self.idle_s

    def ask_to_leave(self, why: str) -> None:
        self.asked.append(why)


def arrive(at: Places, *guests: Guest) -> list[bool]:
    """Let guests come and ask for a place; return who got one."""
    for guest in guests:
        at.arrive(guest)
    return [at.seat(guest) for guest in guests]


def test_who_has_been_idle_longest_gives_way():
    """Of several that are parked, the one for the longest time goes, and only one."""
    at = Places(3)
    guests = [Guest(PARKED_S + 1), Guest(PARKED_S + 60), Guest(None)]

    seated = arrive(at, *guests, Guest())

    assert seated == [True] * 4
    assert [bool(guest.asked) for guest in guests] == [False, True, False]


def test_nobody_gives_way_who_was_at_work_a_moment_ago():
    """A pause between two instances costs nobody a place."""
    at = Places(2)
    guests = [Guest(PARKED_S / 2), Guest(None)]

    seated = arrive(at, *guests, Guest())

    assert seated == [True, True, False]
    assert not any(guest.asked for guest in guests)


@pytest.mark.parametrize("way", ["unseat", "leave"])
def test_place_can_be_taken_again(way):
    """Who is done makes room."""
    at = Places(1)
    first = Guest()
    arrive(at, first)

    getattr(at, way)(first)

    assert arrive(at, Guest()) == [True]


def test_oldest_of_too_many_connections_goes():
    """Connections without an association are bounded; associations are not counted with them."""
    at = Places(1)
    seated = Guest()
    arrive(at, seated)
    waiting = [Guest() for _ in range(WAITING + 2)]

    for guest in waiting:
        at.arrive(guest)

    assert [bool(guest.asked) for guest in waiting] == [True, True] + [False] * WAITING
    assert not seated.asked


def test_p7_connections_that_do_not_go_are_bounded():
    """P7: who was asked to leave counts until it is gone, and gets no place any more."""
    at = Places(1)
    guests = [Guest() for _ in range(WAITING + LEAVING + 1)]

    let_in = [at.arrive(guest) for guest in guests]
    seated = at.seat(guests[0])
    at.leave(guests[0])

    assert let_in == [True] * (WAITING + LEAVING) + [False]
    assert not seated
    assert at.arrive(Guest())


def test_end_waits_for_all():
    """A stop waits for the associations, and then asks everybody to leave."""
    at = Places(2)
    staying, leaving, knocking = Guest(), Guest(), Guest()
    arrive(at, staying, leaving)
    at.arrive(knocking)
    threading.Timer(0.05, at.unseat, [leaving]).start()

    at.wait_until_free(0.2)
    at.clear(0.0)

    assert staying.asked == leaving.asked == knocking.asked == ["the node is stopping"]
