"""Takes STABLE revisions, one after another, through the scorer to their outcome.

Guarantees that each revision ends in exactly one outcome (promise P4): an attempt that fails is
made again, the third makes the revision FAILED. What is nobody's fault costs no attempt: a model
that cannot be loaded, a database that is away, a node that is asked to stop.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from tfkt_node.audit.store import Store
from tfkt_node.records import Assessment, ClaimedRevision, NodeError, Reason, Retriable
from tfkt_node.report.owed import objects_owed
from tfkt_node.scorer import Scorer, ScorerUnavailable, ScoringFailed
from tfkt_node.settings import Settings

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Attempts at scoring one revision before it is FAILED (design 5)."""

LOOK_S = 0.25
"""How often the rows are looked at for a revision that is due."""

BACK_OFF_S = 10.0


class ScoringLoop:
    """The thread that claims, submits and commits.

    clock: aware UTC. on_outcome: called after each commit, to have reports made at once.
    back_off_s: how long to wait after a failure that the next moment will not mend.
    """

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        settings: Settings,
        store: Store,
        owner: str,
        clock: Callable[[], datetime],
        on_outcome: Callable[[], None],
        *,
        back_off_s: float = BACK_OFF_S,
    ) -> None:
        self._settings = settings
        self._store = store
        self._owner = owner
        self._clock = clock
        self._on_outcome = on_outcome
        self._back_off_s = back_off_s
        self._scorer = Scorer(settings)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scoring")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Give back what is in hand and stop. May be called when never started."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        with self._scorer:
            while not self._stopping.is_set():
                try:
                    wait_s = 0.0 if self._score_next() else LOOK_S
                except NodeError as error:
                    log.error('scoring.waits why="%s"', error)
                    wait_s = self._back_off_s
                except Exception as error:
                    log.exception("scoring.turn_failed type=%s", type(error).__name__)
                    wait_s = self._back_off_s
                self._stopping.wait(wait_s)

    def _score_next(self) -> bool:
        """Score the next revision that is due. Returns whether there was one."""
        scoring = self._settings.scoring
        claimed = self._store.claim_revision(
            self._owner, self._clock(), scoring.lease_s, scoring.backlog_after_s
        )
        if claimed is None:
            return False
        try:
            if claimed.attempts >= ATTEMPTS:
                raise ScoringFailed(Reason.SCORER_CRASHED, "The node itself ended each time.")
            keep_lease = _LeaseKeeper(self._store, self._owner, claimed, scoring.lease_s)
            assessment = self._scorer.submit(
                claimed.instances, claimed.attributes, lambda: self._while_waiting(keep_lease)
            )
        except (_Stopping, ScorerUnavailable):
            self._store.give_back_revision(claimed.revision_id, self._owner)
            raise
        except ScoringFailed as failure:
            log.warning(
                'revision.attempt_failed revision=%d attempt=%d reason=%s why="%s"',
                claimed.revision_id, claimed.attempts + 1, failure.reason, failure.detail,
            )  # fmt: skip
            if claimed.attempts + 1 < ATTEMPTS:
                self._try_later(claimed, failure)
                return True
            assessment = self._failed(claimed, failure)
        self._commit(claimed, assessment)
        return True

    def _while_waiting(self, keep_lease: _LeaseKeeper) -> None:
        if self._stopping.is_set():
            raise _Stopping("the node was asked to stop; the revision was given back")
        keep_lease(self._clock())

    def _try_later(self, claimed: ClaimedRevision, failure: ScoringFailed) -> None:
        at = self._clock()
        self._store.record_failed_attempt(
            claimed.revision_id, self._owner, failure.reason, failure.detail,
            retry_at=at + timedelta(seconds=self._settings.scoring.retry_delay_s), at=at,
        )  # fmt: skip

    def _failed(self, claimed: ClaimedRevision, failure: ScoringFailed) -> Assessment:
        from tfkt_node import assess  # late: brings scipy, which only the child needs otherwise

        return assess.failed(
            self._settings, claimed.instances, claimed.attributes, failure.reason, failure.detail
        )

    def _commit(self, claimed: ClaimedRevision, assessment: Assessment) -> None:
        """Commit, however long the database is away: the work is done and must not be lost."""
        owed, because = objects_owed(
            assessment,
            self._settings.report,
            self._settings.destinations,
            answers_earlier=claimed.answers_earlier,
        )
        verdict_id = str(uuid.uuid4())
        while True:
            try:
                committed = self._store.commit_assessment(
                    claimed.revision_id, self._owner, assessment, verdict_id, owed, because,
                    self._clock(),
                )  # fmt: skip
                break
            except Retriable as error:
                log.warning('revision.commit_waits why="%s"', error)
                if self._stopping.wait(self._back_off_s):
                    return  # the lease lapses, and the revision is scored again
        log.info(
            "revision.%s revision=%d verdict=%s flagged=%s committed=%s",
            assessment.outcome.lower(), claimed.revision_id, assessment.verdict,
            assessment.flagged, committed,
        )  # fmt: skip
        self._on_outcome()


class _LeaseKeeper:
    """Renews the lease of a revision while the child works; raises _LeaseLost when it is gone."""

    def __init__(self, store: Store, owner: str, claimed: ClaimedRevision, lease_s: float) -> None:
        self._store = store
        self._owner = owner
        self._claimed = claimed
        self._lease_s = lease_s
        self._renewed = time.monotonic()

    def __call__(self, now: datetime) -> None:
        if time.monotonic() - self._renewed < self._lease_s / 3:
            return
        self._renewed = time.monotonic()
        until = now + timedelta(seconds=self._lease_s)
        try:
            held = self._store.renew_revision(self._claimed.revision_id, self._owner, until)
        except Retriable as error:
            # Nobody else can take the revision while the database is away.
            log.warning('revision.lease_not_renewed why="%s"', error)
            return
        if not held:
            raise _LeaseLost("another process may have the revision; this attempt was dropped")


class _Stopping(NodeError):
    """The node was asked to stop while a revision was being scored."""


class _LeaseLost(NodeError):
    """The lease of the revision in hand ran out."""
