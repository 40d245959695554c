"""Work that is looked for again and again, each kind in turns, and never twice at once.

Not a scheduler: what is due is written in the rows, the timers only look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from tfkt_node.records import NodeError

log = logging.getLogger(__name__)

BACK_OFF_S = 10.0
"""How long work that failed is left alone: a database that is away is away for a while."""

CLOCK_LOOK_S, CLOCK_SET_S = 0.5, 5.0
"""How often the clock is compared with the one that never jumps, and what counts as a jump."""


class Timers:
    """Threads that do work at intervals, and at once when asked."""

    def __init__(
        self, threads: int, clock: Callable[[], datetime], on_clock_set: Callable[[], object]
    ) -> None:
        """threads: pieces of work at once. on_clock_set: told after the system's clock was set."""
        self._clock = clock
        self._on_clock_set = on_clock_set
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": ThreadPoolExecutor(threads)}
        )
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._watch_clock, name="clock", daemon=True)

    def start(self) -> None:
        """Start; work may be added before and after."""
        self._scheduler.start()
        self._watch.start()

    def stop(self) -> None:
        """Wait for what is in hand, and do no more."""
        self._stopping.set()
        self._watch.join()
        self._scheduler.shutdown()

    def every(self, seconds: float, work: Callable[[], object], name: str) -> None:
        """Do `work` again and again, one at a time; an error costs some turns, not the node."""

        def turn() -> None:
            try:
                work()
            except NodeError as error:
                log.error('node.turn_failed work=%s why="%s"', name, error)
                self.soon(name, BACK_OFF_S)
            except Exception as error:
                log.exception("node.turn_failed work=%s type=%s", name, type(error).__name__)
                self.soon(name, BACK_OFF_S)

        self._scheduler.add_job(
            turn, "interval", seconds=seconds, id=name, max_instances=1, coalesce=True,
            misfire_grace_time=None, next_run_time=self._clock(),
        )  # fmt: skip

    def soon(self, name: str, after_s: float = 0.0) -> None:
        """Let the next turn of some work come at once, or only after a while."""
        with suppress(JobLookupError):  # the timers end before the last turns do
            after = timedelta(seconds=after_s)
            self._scheduler.modify_job(name, next_run_time=self._clock() + after)

    def _watch_clock(self) -> None:
        """Let no turn wait for a time that was, or that comes twice, because the clock was set."""
        ahead = self._ahead()
        while not self._stopping.wait(CLOCK_LOOK_S):
            before, ahead = ahead, self._ahead()
            if abs(ahead - before) >= CLOCK_SET_S:
                log.warning("node.clock_set by_s=%+.0f", ahead - before)
                self._on_clock_set()
                for job in self._scheduler.get_jobs():
                    self.soon(job.id)

    def _ahead(self) -> float:
        return self._clock().timestamp() - monotonic()
