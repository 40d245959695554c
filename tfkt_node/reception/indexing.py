"""Bring what reception has stored into the index, in a thread of its own.

The file is the receipt and the row follows (P7): while the database is away reception goes on, the
rows are written when it is back, and what was lost in a crash is found again from the files (P1).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from time import monotonic

from tfkt_node.audit.store import Store
from tfkt_node.reception.arrivals import Arrival, AssociationEnded, AssociationOpened
from tfkt_node.reception.headers import read_header
from tfkt_node.reception.instances import Spool, read_stored
from tfkt_node.records import InstanceHeader, Retriable, StoredInstance

LOGGER = logging.getLogger(__name__)

LONGEST_QUEUE = 100_000
"""Arrivals kept in memory (some 50 MB) while the database is away; the rest is found from files."""
LONGEST_BATCH, LARGEST_BATCH_BYTES = 1000, 16 << 20
"""Arrivals that are written together at most, and about the bytes that reports may copy of them."""
GATHER_S, PAUSE_S = 2.0, 0.2
"""How long the first of a batch waits for others, and after which pause for no more of them."""
GATHER_SHARE = 0.25
"""The same as a share of the quiet period: the rows of a series must not look like its end."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0
RECONCILE_AFTER_S, LONGEST_RECONCILE_S = 60.0, 600.0
"""Least time between two reconciliations that make up for arrivals left behind; it doubles up to
the longest while files are left that cannot be indexed, be it the database that refuses them."""


Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a comparison of files and rows came to, in counts.

    indexed: files without a row, or whose row said that they were missing. unreadable: files that
    reception did not write, that are gone again, or whose content the index refuses; they stay as
    they are.
    """

    indexed: int
    missing: int
    unreadable: int


def reconcile(
    store: Store, spool: Spool, now: datetime, waiting: Container[str] = ()
) -> Reconciliation:
    """Give every file its row, and record every row whose file is gone or there again.

    waiting: digests that an indexer is about to write; it knows more of them than their files do.
    Safe beside a running reception: what both see is a duplicate for the index. An instance counts
    as received when its file was written, but as arrived now, so that its series stays open for a
    whole quiet period. Raises Retriable when the database is away.
    """
    there = store.known_digests() - store.missing_digests()
    indexed = unreadable = 0
    gone = set(there)
    for path in spool.stored_files():
        gone.discard(path.stem)
        if path.stem in there or path.stem in waiting:
            continue
        try:
            instance = read_stored(path)
            store.index_instance(instance, read_header(path), now)
            indexed += 1
        except Retriable:
            raise  # the database is away for every file
        except Exception as error:  # noqa: BLE001 - one odd file must not keep the rest waiting
            unreadable += 1
            LOGGER.warning("index.file_left error=%s", type(error).__name__)
    missing = sum(
        store.record_missing_file(digest, now)
        for digest in sorted(gone)
        if not spool.path_of(digest).exists()  # it may have come again since its folder was read
    )
    counts = Reconciliation(indexed=indexed, missing=missing, unreadable=unreadable)
    LOGGER.info(
        "index.reconciled indexed=%d missing=%d unreadable=%d", indexed, missing, unreadable
    )
    return counts


class Indexer:
    """The thread that writes arrivals into the index, in the order in which they came.

    quiet_s: after which a series without a new row counts as complete. seconds: a clock that never
    goes back; the other gives the times of rows.
    """

    def __init__(  # noqa: PLR0913 - wired in one place, each by name
        self,
        store: Store,
        spool: Spool,
        clock: Clock,
        *,
        quiet_s: float,
        first_retry_s: float = FIRST_RETRY_S,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._store = store
        self._spool = spool
        self._clock = clock
        self._gather_s = min(GATHER_S, GATHER_SHARE * quiet_s)
        self._first_retry_s = first_retry_s
        self._seconds = seconds
        self._arrivals: queue.Queue[Arrival] = queue.Queue(LONGEST_QUEUE)
        self.waiting_digests: set[str] = set()  # of the instances among them
        self._left_behind = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, limit_s: float) -> bool:
        """Write what is waiting, for at most limit_s seconds; tell whether all was written."""
        self._stopping.set()
        self._thread.join(limit_s)
        return self._arrivals.empty() and not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Arrivals that have no row yet."""
        return self._arrivals.qsize()

    def offer(self, arrival: Arrival) -> None:
        """Take an arrival over; never blocks and never fails (P7)."""
        digests = _digests([arrival])
        self.waiting_digests.update(digests)
        try:
            self._arrivals.put_nowait(arrival)
        except queue.Full:
            self.waiting_digests.difference_update(digests)
            self._left_behind.set()

    def _run(self) -> None:
        reconciled_at, pause_s = self._seconds(), RECONCILE_AFTER_S
        written, busy_s = 0, 0.0
        while True:
            if batch := self._next_batch():
                began = self._seconds()
                self._write(batch)
                busy_s += self._seconds() - began
                digests = _digests(batch)
                self.waiting_digests.difference_update(digests)
                written += len(digests)
                continue
            if written:  # for whoever wonders whether the index keeps up
                LOGGER.info("index.caught_up instances=%d busy_s=%.6f", written, busy_s)
                written, busy_s = 0, 0.0
            if self._stopping.is_set():
                return
            if self._left_behind.is_set() and self._seconds() - reconciled_at >= pause_s:
                pause_s = self._make_up(pause_s)
                reconciled_at = self._seconds()

    def _next_batch(self) -> list[Arrival]:
        """Wait for arrivals, and for more of them as long as they keep coming.

        A commit costs the same for one and for many, and in the thick of a series the cores are
        better spent on its answers.
        """
        try:
            batch = [self._arrivals.get(timeout=0.2)]
        except queue.Empty:
            return []
        deadline = self._seconds() + self._gather_s
        while self.waiting < LONGEST_BATCH and (left_s := deadline - self._seconds()) > 0:
            before = self.waiting
            if self._stopping.wait(min(PAUSE_S, left_s)) or self.waiting == before:
                break
        with contextlib.suppress(queue.Empty):
            while len(batch) < LONGEST_BATCH:
                batch.append(self._arrivals.get_nowait())
        return batch

    def _write(self, batch: Sequence[Arrival]) -> None:
        """Write arrivals in their order; those of instances together, where they follow others."""
        for are_instances, members in groupby(batch, lambda one: isinstance(one, StoredInstance)):
            run = list(members)
            if are_instances and len(run) > 1 and self._write_together(run):
                continue
            for arrival in run:
                self._write_one(arrival)

    def _write_together(self, run: list[Arrival]) -> bool:
        """Write instances at once; tell whether it went well: else each has to stand for itself."""
        try:
            self._record(run)
        except Exception as error:  # noqa: BLE001 - one bad arrival must not stop the rest
            LOGGER.warning(
                "index.batch_failed instances=%d error=%s", len(run), type(error).__name__
            )
            return False
        return True

    def _write_one(self, arrival: Arrival) -> None:
        """Write one arrival, waiting as long as it takes for a database that is away.

        What fails for another reason is left to a reconciliation at once: behind it a series may
        wait whose quiet period runs.
        """
        delay_s = self._first_retry_s
        while True:
            try:
                self._record([arrival])
                return
            except Exception as error:  # noqa: BLE001 - one bad arrival must not stop the rest
                LOGGER.warning(
                    "index.failed kind=%s error=%s waiting=%d",
                    type(arrival).__name__,
                    type(error).__name__,
                    self.waiting,
                )
                if not isinstance(error, Retriable):
                    break
            if self._stopping.wait(delay_s):
                break
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)
        self._left_behind.set()

    def _record(self, run: Sequence[Arrival]) -> None:
        """Write one arrival, or several instances."""
        match run[0]:
            case StoredInstance():
                # The quiet period counts from the row: after an outage of the database the first
                # rows of a series must not look quiet while the rest of it still waits here.
                for headed in _headed(run):
                    self._store.index_instances(headed, self._clock())
            case AssociationOpened() as opened:
                self._store.open_association(
                    opened.association_id,
                    opened.calling_ae,
                    opened.called_ae,
                    opened.address,
                    opened.at,
                )
            case AssociationEnded() as ended:
                self._store.end_association(ended.association_id, ended.how, ended.at)

    def _make_up(self, pause_s: float) -> float:
        """Reconcile after a pause; return the pause before the next time, if there is one."""
        self._left_behind.clear()
        try:
            counts = reconcile(self._store, self._spool, self._clock(), self.waiting_digests)
        except Exception as error:  # noqa: BLE001 - as above; the next round tries again
            LOGGER.warning("index.reconcile_failed error=%s", type(error).__name__)
            self._left_behind.set()
            return RECONCILE_AFTER_S
        if not counts.unreadable:
            return RECONCILE_AFTER_S
        self._left_behind.set()
        return min(2 * pause_s, LONGEST_RECONCILE_S)


def _digests(arrivals: Sequence[Arrival]) -> list[str]:
    return [arrival.digest for arrival in arrivals if isinstance(arrival, StoredInstance)]


def _headed(run: Sequence[Arrival]) -> Iterator[list[tuple[StoredInstance, InstanceHeader]]]:
    """Read the headers of instances; yield them as soon as they are large enough together."""
    headed, size_bytes = [], 0
    for instance in run:
        assert isinstance(instance, StoredInstance)
        header = read_header(instance.path)
        headed.append((instance, header))
        size_bytes += len(header.attributes)
        if size_bytes >= LARGEST_BATCH_BYTES:
            yield headed
            headed, size_bytes = [], 0
    if headed:
        yield headed
