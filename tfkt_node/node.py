"""Wires the stations into a running node and keeps them going.

The only module that knows all stations. Reception runs in threads of its own and never waits for
anything here (promise P7); everything else takes its work from the rows of the audit store, so that
a kill at any moment loses nothing and a restart goes on (P1, P4, P5). Not a scheduler: what is due
is written in the rows, the timers below only look.
"""

from __future__ import annotations

import logging
import signal
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from types import TracebackType

from apscheduler.schedulers.background import BackgroundScheduler

from tfkt_node import assess
from tfkt_node.audit.store import Store
from tfkt_node.delivery import outbox
from tfkt_node.iqa import bundle
from tfkt_node.reception.association import StorageSCP
from tfkt_node.reception.door import Door
from tfkt_node.reception.indexing import Indexer, reconcile
from tfkt_node.reception.instances import Spool, write_durably
from tfkt_node.records import (
    Assessment,
    ClaimedRevision,
    Misconfigured,
    NodeError,
    ObjectKind,
    Reason,
)
from tfkt_node.report import key_objects, structured_report
from tfkt_node.report.owed import objects_owed
from tfkt_node.scorer import Scorer, ScoringFailed
from tfkt_node.series import arrivals
from tfkt_node.settings import Settings
from tfkt_node.slices.decoding import decodable_syntaxes

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Attempts at scoring one revision before it is FAILED (design 5)."""

LOOK_S = 0.5
"""How often the rows are looked at for work that is due."""

SWEEP_S = 60.0
"""How often leases of dead processes are released."""

STOP_S = 30.0
"""How long a stop waits for associations, and then for the index to catch up."""


def now() -> datetime:
    """Return the time: the one clock of the node."""
    return datetime.now(UTC)


class Node:
    """One running node: reception, series, scoring, reports and delivery."""

    def __init__(self, settings: Settings) -> None:
        """Open the bundle, the spool and the database; nothing listens yet.

        Raises Misconfigured or Permanent for a bundle or a database that cannot work.
        """
        bundle.load(settings.scoring.bundle)
        self.settings = settings
        self.owner = uuid.uuid4().hex  # random per start: a restarted host must not look alive
        self.spool = _open_spool(settings)
        self.store = Store(settings.storage.database_url)
        self.store.check_schema()
        self._stopping = threading.Event()
        self._scorer = Scorer(settings)
        self._indexer = Indexer(self.store, self.spool, now)
        self._scp = StorageSCP(
            settings.reception,
            Door(settings.reception, settings.peers),
            self.spool,
            self._indexer.offer,
            decodable=decodable_syntaxes(),
            clock=now,
        )
        self._scoring = threading.Thread(target=self._score_until_stopped, name="scoring")
        self._timers = BackgroundScheduler(timezone=UTC)

    @property
    def port(self) -> int:
        """TCP port that the node listens on."""
        return self._scp.port

    def start(self) -> None:
        """Reconcile spool and rows, then take associations and work."""
        swept = self.spool.sweep_partial_files()
        reconcile(self.store, self.spool, now())
        self.store.release_expired_leases(now())
        arrivals.restart_quiet_periods(self.store, now())
        log.info("node.started partial_files_swept=%d", swept)
        self._indexer.start()
        self._scp.start()
        self._scorer.start()
        self._scoring.start()
        self._every(LOOK_S, self._close_quiet_series, "close_quiet_series")
        self._every(LOOK_S, self._make_reports, "make_reports")
        for peer in self.settings.destinations:
            self._every(LOOK_S, partial(self._deliver, peer.name), f"deliver_to_{peer.name}")
        self._every(SWEEP_S, self._sweep, "sweep")
        self._timers.start()

    def stop(self) -> None:
        """Let associations end, finish what is in hand, and stop."""
        self._scp.stop(STOP_S)
        self._indexer.stop(STOP_S)
        self._stopping.set()
        self._timers.shutdown()
        self._scoring.join()
        self._scorer.close()
        self.store.close()
        log.info("node.stopped")

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

    # ----------------------------------------------------------------- timers

    def _every(self, seconds: float, work: Callable[[], object], name: str) -> None:
        """Run `work` again and again, one at a time; an error costs one turn, not the node."""

        def turn() -> None:
            try:
                work()
            except Exception as error:
                log.exception("node.turn_failed work=%s type=%s", name, type(error).__name__)

        self._timers.add_job(
            turn, "interval", seconds=seconds, id=name, max_instances=1, coalesce=True,
            misfire_grace_time=None, next_run_time=now(),
        )  # fmt: skip

    def _soon(self, name: str) -> None:
        self._timers.modify_job(name, next_run_time=now())

    def _sweep(self) -> None:
        """Take back what dead processes held, and end what the library lost sight of."""
        self.store.release_expired_leases(now())
        self._scp.end_dead_associations()

    def _close_quiet_series(self) -> None:
        arrivals.close_quiet_series(self.store, self.settings.series, now())

    def _make_reports(self) -> None:
        """Build every object that is owed."""
        while (
            claimed := self.store.claim_object(self.owner, now(), self.settings.scoring.lease_s)
        ) is not None:
            try:
                if claimed.kind is ObjectKind.SR:
                    worst = self.settings.report.worst_slices
                    made = structured_report.build(claimed.record, worst)
                else:
                    made = key_objects.build(claimed.record)
                path = self.spool.object_path(made.sop_instance_uid)
                write_durably(path, (made.content,))
            except NodeError as error:
                self.store.object_failed(claimed.object_id, self.owner, str(error), now())
            except Exception as error:
                # No traceback: values of the header may stand in it (P10).
                what = f"{type(error).__name__} while building it"
                log.exception("report.failed kind=%s type=%s", claimed.kind, type(error).__name__)
                self.store.object_failed(claimed.object_id, self.owner, what, now())
            else:
                self.store.object_built(claimed.object_id, self.owner, made, path, now())
                for peer in self.settings.destinations:
                    self._soon(f"deliver_to_{peer.name}")

    def _deliver(self, destination: str) -> None:
        outbox.deliver_due(self.store, self.settings, destination, self.owner, now, Random())

    # ----------------------------------------------------------------- scoring

    def _score_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                worked = self._score_next()
            except Exception as error:
                log.exception("node.turn_failed work=scoring type=%s", type(error).__name__)
                worked = False
            if not worked:
                self._stopping.wait(LOOK_S / 2)

    def _score_next(self) -> bool:
        """Score the next revision that is due. Returns whether there was one."""
        scoring = self.settings.scoring
        claimed = self.store.claim_revision(
            self.owner, now(), scoring.lease_s, scoring.backlog_after_s
        )
        if claimed is None:
            return False
        try:
            if claimed.attempts >= ATTEMPTS:
                raise ScoringFailed(Reason.SCORER_CRASHED, "")
            assessment = self._scorer.submit(
                claimed.instances, claimed.attributes, self._lease_keeper(claimed)
            )
        except _Stopping:
            self.store.give_back_revision(claimed.revision_id, self.owner)
            return False
        except ScoringFailed as failure:
            if claimed.attempts + 1 < ATTEMPTS:
                retry_at = now() + timedelta(seconds=scoring.retry_delay_s)
                self.store.record_failed_attempt(
                    claimed.revision_id, self.owner, failure.reason, failure.detail, retry_at, now()
                )
                return True
            assessment = assess.failed(
                self.settings, claimed.instances, claimed.attributes, failure.reason, failure.detail
            )
        self._commit(claimed, assessment)
        return True

    def _commit(self, claimed: ClaimedRevision, assessment: Assessment) -> None:
        owed, because = objects_owed(assessment, self.settings.report.silent_reasons)
        committed = self.store.commit_assessment(
            claimed.revision_id,
            self.owner,
            assessment,
            verdict_id=str(uuid.uuid4()),
            objects_owed=owed,
            no_report_because=because,
            destinations=[peer.name for peer in self.settings.destinations],
            at=now(),
        )
        log.info(
            "revision.%s revision=%d verdict=%s committed=%s",
            assessment.outcome.lower(), claimed.revision_id, assessment.verdict, committed,
        )  # fmt: skip
        self._soon("make_reports")

    def _lease_keeper(self, claimed: ClaimedRevision) -> Callable[[], None]:
        """Return what renews the lease while the child works, and gives up when asked to stop."""
        lease_s = self.settings.scoring.lease_s
        renewed_at = now()

        def keep() -> None:
            nonlocal renewed_at
            if self._stopping.is_set():
                raise _Stopping
            if now() - renewed_at > timedelta(seconds=lease_s / 3):
                renewed_at = now()
                until = renewed_at + timedelta(seconds=lease_s)
                self.store.renew_revision(claimed.revision_id, self.owner, until)

        return keep


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


class _Stopping(Exception):
    """The node was asked to stop while a revision was being scored."""
