"""Turns come, one at a time, whatever the work or the system's clock does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import apscheduler.executors.base
import apscheduler.schedulers.base
import apscheduler.triggers.interval
import pytest

from tests.running_node import wait_for
from tfkt_node import timers
from tfkt_node.records import Retriable
from tfkt_node.timers import Timers


class Clock(datetime):
    """The system's clock, which somebody may set."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Clock]]:
    for module in (
        apscheduler.executors.base,
        apscheduler.schedulers.base,
        apscheduler.triggers.interval,
    ):
        monkeypatch.setattr(module, "datetime", Clock)
    yield Clock
    Clock.ahead = timedelta()


class Work:
    """Counts its turns, and fails in those named."""

    def __init__(self, fails: frozenset[int] = frozenset()) -> None:
        self.turns = 0
        self._fails = fails

    def __call__(self) -> None:
        self.turns += 1
        if self.turns in self._fails:
            raise Retriable("the database is away")


@pytest.mark.parametrize("hours", [-1, 1])
def test_p4_turns_go_on_when_the_clock_is_set(clock: type[Clock], hours: int) -> None:
    """P4, P5: nothing waits for an hour that comes twice; who counts time is told."""
    work, told = Work(), threading.Event()
    running = Timers(1, lambda: clock.now(UTC), told.set)
    running.every(0.1, work, "work")
    running.start()
    try:
        wait_for("a turn", lambda: work.turns > 2)
        clock.ahead = timedelta(hours=hours)
        before = work.turns
        wait_for("a turn after the clock was set", lambda: work.turns > before + 5, 10)
    finally:
        running.stop()

    assert told.is_set()


def test_clock_that_goes_on_is_not_said_to_be_set(clock: type[Clock]) -> None:
    """A second more or less is no jump: time servers correct by that much."""
    told = threading.Event()
    running = Timers(1, lambda: clock.now(UTC), told.set)
    running.start()
    try:
        clock.ahead = timedelta(seconds=1)
        assert not told.wait(3 * timers.CLOCK_LOOK_S)
    finally:
        running.stop()


def test_work_that_fails_is_left_alone_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error costs some turns, not the node."""
    monkeypatch.setattr(timers, "BACK_OFF_S", 0.5)
    work = Work(fails=frozenset({1}))
    running = Timers(1, lambda: datetime.now(UTC), lambda: None)
    running.every(0.05, work, "work")
    running.start()
    try:
        wait_for("the next turn", lambda: work.turns > 1, 10)
    finally:
        running.stop()
