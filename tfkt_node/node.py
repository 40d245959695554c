"""Wires the stations into a running node and keeps them going.

The only module that knows all stations. Reception runs in threads of its own and never waits for
anything here (promise P7); everything else takes its work from the rows of the audit store, so that
a kill at any moment loses nothing and a restart goes on (P1, P4, P5).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from types import TracebackType

from tfkt_node.audit.store import Store
from tfkt_node.delivery import outbox
from tfkt_node.iqa import bundle
from tfkt_node.making import make
from tfkt_node.reception.association import StorageSCP
from tfkt_node.reception.door import Door
from tfkt_node.reception.indexing import Indexer, reconcile
from tfkt_node.reception.instances import Spool, write_durably
from tfkt_node.records import (
    ClaimedObject,
    Misconfigured,
    NodeError,
    Permanent,
    Retriable,
)
from tfkt_node.scoring import ScoringLoop
from tfkt_node.series import arrivals
from tfkt_node.settings import Settings
from tfkt_node.slices.decoding import decodable_syntaxes
from tfkt_node.timers import BACK_OFF_S, Timers

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often the rows are looked at for work that is due."""

SWEEP_S = 10.0
"""How often leases of dead processes are released, and orphaned deliveries are given up."""

STOP_S = 30.0
"""How long a stop waits for associations, and then for the index to catch up."""

REPORT_RETRY_S = 30.0
"""How long a report waits that could not be written to the disk."""


def now() -> datetime:
    """Return the time: the one clock of the node."""
    return datetime.now(UTC)


class Node:
    """One running node: reception, series, scoring, reports and delivery."""

    def __init__(self, settings: Settings) -> None:
        """Open the spool and look at the database and the bundle; nothing listens yet.

        Raises Misconfigured for settings, a spool, a schema or a bundle's name that cannot work. A
        database that is away, damaged or closed to the node, and a bundle that is broken, are only
        said: they must not keep images out (promise P7).
        """
        self.settings = settings
        self.owner = uuid.uuid4().hex  # random per start: a restarted host must not look alive
        self.spool = _open_spool(settings)
        self.spool.claim()
        self.store = Store(settings.storage.database_url)
        self._look_at_what_may_be_away()
        self._stopping = threading.Event()
        self._indexer = Indexer(self.store, self.spool, now, quiet_s=settings.series.quiet_s)
        self._scp = StorageSCP(
            settings.reception,
            Door(settings.reception, settings.peers),
            self.spool,
            self._indexer.offer,
            decodable=decodable_syntaxes(),
            clock=now,
        )
        self._clock_was_set = threading.Event()
        # Each destination may block a thread of its own, and never the rest of the work.
        self._timers = Timers(4 + len(settings.destinations), now, self._clock_was_set.set)
        self._scoring = ScoringLoop(
            settings,
            self.store,
            self.owner,
            now,
            on_outcome=partial(self._timers.soon, "make_reports"),
        )
        self._catching_up = threading.Thread(
            target=self._catch_up, args=(now(),), name="catch-up", daemon=True
        )

    @property
    def port(self) -> int:
        """TCP port that the node listens on."""
        return self._scp.port

    def start(self) -> None:
        """Take associations at once; all other work follows when the database is there.

        Raises Permanent when the address cannot be listened on.
        """
        swept = self.spool.sweep_partial_files()
        self._indexer.start()
        try:
            self._scp.start()
        except OSError as error:
            where = f"{self.settings.reception.host}:{self.settings.reception.port}"
            named = isinstance(error, socket.gaierror)
            why = error.strerror if named else os.strerror(error.errno or 0)  # without the address
            raise Permanent(
                f"cannot listen on {where} ({why})",
                "end what listens there, or change reception.host or reception.port",
            ) from error
        self._timers.start()
        self._catching_up.start()
        log.info("node.started partial_files_swept=%d", swept)

    def stop(self) -> None:
        """Let associations end, finish what is in hand, and stop."""
        self._scp.stop(STOP_S)
        self._indexer.stop(STOP_S)
        self._stopping.set()
        self._catching_up.join()
        self._scoring.stop()
        self._timers.stop()
        self.store.close()
        self.spool.release()
        log.info("node.stopped")

    def _look_at_what_may_be_away(self) -> None:
        try:
            bundle.load(self.settings.scoring.bundle)
        except Permanent as error:
            log.error('node.bundle_broken why="%s" cure="%s"', error, error.cure)
        try:
            self.store.check_schema()
        except (Retriable, Permanent) as error:
            log.error('node.database_away why="%s"', _with_cure(error))

    def _catch_up(self, started_at: datetime) -> None:
        """Bring rows in line with files and settings, then start the work that lives off rows."""
        while not self._stopping.is_set():
            try:
                self._bring_rows_in_line(started_at)
            except NodeError as error:
                log.error('node.catch_up_waits why="%s"', _with_cure(error))
            except Exception as error:
                log.exception("node.catch_up_failed type=%s", type(error).__name__)
            else:
                self._start_work()
                return
            self._stopping.wait(BACK_OFF_S)

    def _bring_rows_in_line(self, started_at: datetime) -> None:
        self.store.check_schema()
        self.store.end_lost_associations(started_at, now())
        reconcile(self.store, self.spool, now(), self._indexer.waiting_digests)
        self.store.release_expired_leases(now(), self.owner)
        self._end_orphaned_deliveries()
        arrivals.restart_quiet_periods(self.store, now())

    def _start_work(self) -> None:
        self._timers.every(LOOK_S, self._close_quiet_series, "close_quiet_series")
        self._timers.every(LOOK_S, self._make_reports, "make_reports")
        for peer in self.settings.destinations:
            self._timers.every(LOOK_S, partial(self._deliver, peer.name), f"deliver_to_{peer.name}")
        self._timers.every(SWEEP_S, self._sweep, "sweep")
        self._scoring.start()

    def run_until_signal(self) -> None:
        """Start, wait for SIGTERM or SIGINT, stop."""
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
        self.start()
        asked.wait()
        self.stop()

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ----------------------------------------------------------------- work

    def _sweep(self) -> None:
        """Take back what dead processes held, and give up what nobody would send.

        An operator may have revived a delivery whose peer is not in the settings.
        """
        self.store.release_expired_leases(now(), self.owner)
        self._end_orphaned_deliveries()

    def _end_orphaned_deliveries(self) -> None:
        names = [peer.name for peer in self.settings.destinations]
        self.store.end_orphaned_deliveries(names, now())

    def _close_quiet_series(self) -> None:
        if self._clock_was_set.is_set():  # the periods that run were begun by another time
            arrivals.restart_quiet_periods(self.store, now())
            self._clock_was_set.clear()
        arrivals.close_quiet_series(self.store, self.settings.series, now())

    def _make_reports(self) -> None:
        """Build every object that is owed."""
        lease_s = self.settings.scoring.lease_s
        while not self._stopping.is_set():
            claimed = self.store.claim_object(self.owner, now(), lease_s)
            if claimed is None:
                return
            self._make(claimed)

    def _make(self, claimed: ClaimedObject) -> None:
        try:
            made = make(claimed, self.settings, self.spool)
            path = self.spool.object_path(made.sop_instance_uid)
            write_durably(path, (made.content,))
        except NodeError as error:
            self.store.object_failed(claimed.object_id, self.owner, _with_cure(error), now())
        except OSError as error:  # of the disk, or of the process that reads the worst slice
            what = (
                f"the system refused what its making needs ({error.strerror}); look after the disk "
                "of the spool, memory, and the limits on processes and files"
            )
            log.error('report.waits kind=%s why="%s"', claimed.kind, what)
            later = now() + timedelta(seconds=REPORT_RETRY_S)
            self.store.object_retry(claimed.object_id, self.owner, what, later)
        except Exception as error:  # noqa: BLE001 - it becomes a state of the object
            # No traceback: values of the header may stand in it (P10).
            what = f"{type(error).__name__} while building it"
            log.error("report.failed kind=%s type=%s", claimed.kind, type(error).__name__)
            self.store.object_failed(claimed.object_id, self.owner, what, now())
        else:
            self.store.object_built(claimed.object_id, self.owner, made, path, now())
            for peer in self.settings.destinations:
                self._timers.soon(f"deliver_to_{peer.name}")

    def _deliver(self, destination: str) -> None:
        outbox.deliver_due(self.store, self.settings, destination, self.owner, now, Random())


def _with_cure(error: NodeError) -> str:
    return f"{error}; cure: {error.cure}" if isinstance(error, Permanent) else str(error)


def _open_spool(settings: Settings) -> Spool:
    folder = settings.storage.spool
    try:
        return Spool(
            folder,
            reserve_bytes=settings.reception.disk_reserve_mb * 1_000_000,
            maximum_bytes=settings.reception.maximum_instance_mb * 1_000_000,
        )
    except OSError as error:
        raise Misconfigured(
            f"storage.spool: the folder {folder} cannot be written ({error.strerror}); "
            "make it, or give it to the user that runs the node"
        ) from error
