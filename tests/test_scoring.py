"""The scoring loop: every revision ends once, and what is nobody's fault costs no attempt."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.audit import making
from tests.running_node import wait_for
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.reception.headers import read_header
from tfkt_node.reception.instances import ReceivedInstance, Spool
from tfkt_node.records import ObjectKind, Reason, Retriable, RevisionState, SeriesRow
from tfkt_node.scoring import ScoringLoop
from tfkt_node.settings import Report, Scoring, Settings, data_folder

pytestmark = pytest.mark.station

BACK_OFF_S = 0.05


class Away(Store):
    """A store whose database is away when a revision is renewed, and at the first commits."""

    def __init__(self, url: str, commits_lost: int = 0) -> None:
        super().__init__(url)
        self.commits_lost = commits_lost

    def renew_revision(self, *_: Any) -> bool:
        raise Retriable("the audit database is away")

    def commit_assessment(self, *given: Any, **named: Any) -> bool:
        if self.commits_lost:
            self.commits_lost -= 1
            raise Retriable("the audit database is away")
        return super().commit_assessment(*given, **named)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    upgrade(url)
    return url


@pytest.fixture
def stable(url: str, tmp_path: Path, shared_data: Path) -> int:
    """The id of a STABLE revision of six real slices."""
    spool, store, now = Spool(tmp_path / "spool"), Store(url), datetime.now(UTC)
    for path in sorted((shared_data / "series" / "LungFCP-01-0001").glob("*.dcm"))[:6]:
        with path.open("rb") as file:
            meta = pydicom.filereader.read_file_meta_info(path)
            offset = 132 + 12 + meta.FileMetaInformationGroupLength
            file.seek(offset)
            received = ReceivedInstance(
                sop_class_uid=meta.MediaStorageSOPClassUID,
                sop_instance_uid=meta.MediaStorageSOPInstanceUID,
                transfer_syntax_uid=meta.TransferSyntaxUID,
                dataset=file.read(),
                calling_ae="SCANNER",
                received_at=now,
            )
        instance, _ = spool.store(received)
        store.index_instance(instance, read_header(instance.path), now)
    later = now + timedelta(seconds=60)
    (quiet,) = store.quiet_revisions(later, 1)
    assert store.close_revision(quiet.revision_id, quiet.last_arrival_at, later)
    store.close()
    return quiet.revision_id


@contextmanager
def scoring(store: Store, settings: Scoring, **others: Any) -> Iterator[Callable[[], SeriesRow]]:
    """Run the loop; yields what tells the series' row."""
    loop = ScoringLoop(
        Settings(scoring=settings, **others), store, "owner", lambda: datetime.now(UTC),
        lambda: None, back_off_s=BACK_OFF_S,
    )  # fmt: skip
    loop.start()
    try:
        yield lambda: store.series_rows()[0]
    finally:
        loop.stop()
        store.close()


@pytest.mark.usefixtures("stable")
def test_database_that_is_away_costs_no_attempt(url: str) -> None:
    """P4: renewals that fail and commits that wait end in the verdict that was found."""
    with scoring(Away(url, commits_lost=3), Scoring(lease_s=1.1)) as row:
        wait_for("a verdict", lambda: row().state is RevisionState.ASSESSED)


def test_broken_bundle_costs_no_attempt(url: str, stable: int, tmp_path: Path) -> None:
    """P6, P7: while the model is broken nothing is scored and nothing fails; mended, it goes on."""
    bundle = tmp_path / "tfkt-v2-lite"
    shutil.copytree(data_folder("models") / "tfkt-v2-lite", bundle)
    (bundle / "model.bin").rename(tmp_path / "away")
    store = Store(url)

    with scoring(store, Scoring(bundle=str(bundle))) as row:
        seen = iter(range(1_000_000))
        wait_for("some turns", lambda: next(seen) > 20)
        assert row().state in {RevisionState.STABLE, RevisionState.SCORING}
        (tmp_path / "away").rename(bundle / "model.bin")
        wait_for("a verdict", lambda: row().state is RevisionState.ASSESSED)
        (revision,) = store.series_detail(row().series_id)["revisions"]
    assert 0 == revision["attempts"]


@pytest.mark.usefixtures("stable")
def test_third_failure_is_final_and_owes_a_report(url: str) -> None:
    """P4: a revision that fails three times is FAILED with its reason, and reported so."""
    store = Store(url)

    with scoring(store, Scoring(time_limit_s=0.01, retry_delay_s=0)) as row:
        wait_for("the end", lambda: row().state is RevisionState.FAILED)
        assert Reason.SCORER_TIMEOUT is row().reason
        claimed = store.claim_object("other", datetime.now(UTC), 60)
    assert claimed is not None
    assert ObjectKind.SR is claimed.kind


def test_revision_with_a_silent_reason_answers_the_report_before_it(url: str) -> None:
    """P5: a flag of revision 1 does not stand when revision 2 cannot be assessed."""
    store = Store(url)
    making.fill(store, 2)
    making.close(store, 30)
    making.decide(store, 31, "v1")
    making.build(store, 32)
    making.fill(store, 1, first=3, now_s=40)
    making.close(store, 80)
    silent = Report(silent_reasons=(Reason.FILE_MISSING,))

    with scoring(store, Scoring(), report=silent) as row:
        wait_for("the end", lambda: row().state is RevisionState.NOT_ASSESSED)
        assert Reason.FILE_MISSING is row().reason
        answer = store.claim_object("other", datetime.now(UTC), 60)
    assert answer is not None
    assert (ObjectKind.SR, True) == (answer.kind, answer.record.predecessor is not None)


@pytest.mark.usefixtures("stable")
def test_stop_gives_the_revision_back(url: str) -> None:
    """P4: an orderly stop costs no attempt; the revision waits for the next start."""
    store = Store(url)

    with scoring(store, Scoring()) as row:
        wait_for("scoring", lambda: row().state is RevisionState.SCORING)
    again = Store(url)
    (found,) = again.series_rows()
    again.close()

    assert RevisionState.STABLE is found.state
