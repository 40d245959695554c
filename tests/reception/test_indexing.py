"""From the spool into the index, and back from a crash."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from time import monotonic, sleep

import pytest

from tests.audit.rows import rows_of
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.reception.arrivals import AssociationEnded, AssociationOpened
from tfkt_node.reception.indexing import (
    RECONCILE_AFTER_S,
    Indexer,
    Reconciliation,
    reconcile,
)
from tfkt_node.reception.instances import ReceivedInstance, Spool
from tfkt_node.records import CT_IMAGE, AssociationEnd, Permanent, Retriable

pytestmark = pytest.mark.station

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECEIVED = ReceivedInstance(CT_IMAGE, "1.2.3.1", "1.2.840.10008.1.2.1", b"", "SCANNER", NOW)


@dataclass
class UnsureStore:
    """A store in which every call may fail first, as `fail` decides; it keeps what it was told."""

    fail: Callable[[str], Exception | None] = lambda name: None
    told: list[tuple[str, str]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def _tell(self, name, *keys):
        for key in keys:
            if error := self.fail(key):
                raise error
        with self.changed:
            self.told += [(name, key) for key in keys]
            self.changed.notify_all()

    def open_association(self, association_id, calling_ae, called_ae, address, at):
        self._tell("open", association_id)

    def end_association(self, association_id, how, at):
        self._tell("end", association_id)

    def index_instance(self, instance, header, now):
        self.index_instances([(instance, header)], now)

    def index_instances(self, batch, now):
        self.batches.append(len(batch))
        self._tell("index", *(instance.sop_instance_uid for instance, _ in batch))

    def known_digests(self):
        self._tell("known", "")
        return set()

    def missing_digests(self):
        return set()

    def record_missing_file(self, digest, at):
        return False

    def wrote(self, key):
        return ("index", key) in self.told

    def wait_for(self, *expected):
        with self.changed:
            assert self.changed.wait_for(lambda: set(expected) <= set(self.told), 20), self.told


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


@pytest.fixture
def store(tmp_path):
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    upgrade(url)
    store = Store(url)
    yield store
    store.close()


def put(spool, number=1):
    return spool.store(replace(RECEIVED, sop_instance_uid=f"1.2.3.{number}"))[0]


def indexing(store, spool, quiet_s=30.0, **options):
    return Indexer(store, spool, lambda: NOW, quiet_s=quiet_s, **options)


def test_p1_files_without_rows_are_found_again(store, spool):
    """P1: after a crash between answer and row, the file gets its row, once."""
    for number in (1, 2, 3):
        put(spool, number)

    first = reconcile(store, spool, NOW)
    again = reconcile(store, spool, NOW)

    assert first == Reconciliation(indexed=3, missing=0, unreadable=0)
    assert again == Reconciliation(indexed=0, missing=0, unreadable=0)
    assert store.known_digests() == {path.stem for path in spool.stored_files()}


def test_rows_without_files_are_recorded_once(store, spool):
    """A row whose file is gone is an event, not a crash, and only once."""
    stored = put(spool)
    reconcile(store, spool, NOW)
    stored.path.unlink()

    first, again = reconcile(store, spool, NOW), reconcile(store, spool, NOW)

    assert (first.missing, again.missing) == (1, 0)


def test_p1_file_that_was_missing_is_found_again(store, spool):
    """P1: after a start on a spool that was not mounted, its instances count as there again."""
    stored = put(spool)
    reconcile(store, spool, NOW)
    away = stored.path.rename(stored.path.with_suffix(".away"))
    reconcile(store, spool, NOW)
    missing = store.missing_digests()
    away.rename(stored.path)

    counts = reconcile(store, spool, NOW)

    assert missing == {stored.digest}
    assert counts == Reconciliation(indexed=1, missing=0, unreadable=0)
    assert store.missing_digests() == set()


def test_file_that_comes_again_meanwhile_is_not_missing(store, spool, monkeypatch):
    """A file that is written while files and rows are compared is not recorded as missing."""
    stored = put(spool)
    reconcile(store, spool, NOW)
    monkeypatch.setattr(Spool, "stored_files", lambda spool: iter(()))

    counts = reconcile(store, spool, NOW)

    assert counts.missing == 0
    assert stored.path.exists()


def test_reconciliation_does_not_overtake_the_indexer(store, spool):
    """An instance that waits for its row keeps its association, whoever comes first."""
    indexer = indexing(store, spool)
    indexer.offer(replace(put(spool), association_id="a1"))

    overtaking = reconcile(store, spool, NOW, indexer.waiting_digests)
    indexer.start()
    indexer.stop(limit_s=20)

    assert overtaking == Reconciliation(indexed=0, missing=0, unreadable=0)
    assert [row["association_id"] for row in rows_of(store, "instances")] == ["a1"]
    assert indexer.waiting_digests == set()


def test_foreign_files_are_counted_and_left(store, spool):
    """A file that reception did not write stops nothing and stays."""
    put(spool)
    foreign = spool.instances / "00" / "foreign.dcm"
    foreign.write_bytes(b"not DICOM")

    counts = reconcile(store, spool, NOW)

    assert counts == Reconciliation(indexed=1, missing=0, unreadable=1)
    assert foreign.exists()


def test_odd_file_does_not_end_a_reconciliation(spool, caplog):
    """P1: a file that the index refuses for whatever reason keeps no other from its row."""
    for number in (1, 2, 3):
        put(spool, number)
    store = UnsureStore(lambda key: ValueError("MARKER") if key == "1.2.3.2" else None)

    counts = reconcile(store, spool, NOW)

    assert counts == Reconciliation(indexed=2, missing=0, unreadable=1)
    assert {key for name, key in store.told if name == "index"} == {"1.2.3.1", "1.2.3.3"}
    assert "error=ValueError" in caplog.text
    assert "MARKER" not in caplog.text


def test_database_that_is_away_ends_a_reconciliation(spool):
    """Files are not counted as odd because the database went away."""
    put(spool)
    store = UnsureStore(lambda key: Retriable("away") if key == "1.2.3.1" else None)

    with pytest.raises(Retriable):
        reconcile(store, spool, NOW)


def test_indexer_writes_arrivals_in_order(store, spool):
    """Association, instance and end get their rows in the real store."""
    indexer = indexing(store, spool)
    indexer.offer(AssociationOpened("a1", "SCANNER", "TFKT_NODE", "127.0.0.1", NOW))
    indexer.offer(replace(put(spool), association_id="a1"))
    indexer.offer(AssociationEnded("a1", AssociationEnd.RELEASED, NOW))

    indexer.start()
    done = indexer.stop(limit_s=20)

    (row,) = store.series_rows()
    assert done
    assert (row.calling_ae, row.instances) == ("SCANNER", 1)


def test_p7_indexer_waits_for_a_database_that_is_away(spool):
    """P7: while the database is away nothing is lost; when it is back all is written in order."""
    away = threading.Event()
    away.set()
    failures = []

    def fail(key):
        if away.is_set():
            failures.append(key)
            if len(failures) > 10:
                away.clear()
            return Retriable("the database is away")
        return None

    store = UnsureStore(fail)
    indexer = indexing(store, spool, first_retry_s=0.001)
    indexer.start()
    for number in (1, 2, 3):
        indexer.offer(put(spool, number))
    store.wait_for(("index", "1.2.3.1"), ("index", "1.2.3.2"), ("index", "1.2.3.3"))
    indexer.stop(limit_s=20)

    assert [key for _, key in store.told] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


def test_one_bad_arrival_does_not_stop_the_rest(spool):
    """An arrival that the database refuses is left behind, and made up for later from its file."""
    now = [0.0]
    bad = {"1.2.3.1"}
    store = UnsureStore(lambda key: ValueError("refused") if key in bad else None)
    indexer = indexing(store, spool, first_retry_s=0.001, seconds=lambda: now[0])
    indexer.start()

    indexer.offer(put(spool, 1))
    indexer.offer(put(spool, 2))
    store.wait_for(("index", "1.2.3.2"))
    bad.clear()
    now[0] += RECONCILE_AFTER_S
    store.wait_for(("index", "1.2.3.1"))

    assert indexer.stop(limit_s=20)


def test_p1_file_that_a_reconciliation_cannot_index_is_tried_again(spool):
    """P1: a database that refuses rows for a while, not by being away, loses none."""
    now, tried_at = [0.0], []

    def fail(key):
        if key:
            tried_at.append(now[0])
        return Permanent("read-only", "") if key and len(tried_at) < 4 else None

    store = UnsureStore(fail)
    indexer = indexing(store, spool, seconds=lambda: now[0])
    indexer.start()

    indexer.offer(put(spool))
    began = monotonic()
    while not store.wrote("1.2.3.1") and monotonic() - began < 60:
        now[0] += 10.0
        sleep(0.01)

    assert store.wrote("1.2.3.1")
    assert indexer.stop(limit_s=20)
    pauses = [after - before for before, after in pairwise(tried_at)]
    assert all(pause >= least for pause, least in zip(pauses[1:], (120, 240), strict=True))


def test_instances_that_wait_are_written_together(spool):
    """A commit is paid for once by many instances, and never across what came between them."""
    store = UnsureStore()
    indexer = indexing(store, spool)
    opened = AssociationOpened("a1", "SCANNER", "TFKT_NODE", "127.0.0.1", NOW)
    for arrival in (put(spool, 1), put(spool, 2), opened, put(spool, 3), put(spool, 4)):
        indexer.offer(arrival)

    indexer.start()
    indexer.stop(limit_s=20)

    assert store.batches == [2, 2]
    assert [key for _, key in store.told] == ["1.2.3.1", "1.2.3.2", "a1", "1.2.3.3", "1.2.3.4"]


def test_p7_batch_of_large_headers_is_written_in_parts(spool, monkeypatch):
    """P7: memory is bounded: what reports may copy of instances is not gathered without end."""
    monkeypatch.setattr("tfkt_node.reception.indexing.LARGEST_BATCH_BYTES", 2 * 4008)
    store = UnsureStore()
    indexer = indexing(store, spool)
    name = b"\x10\0\x10\0PN" + (4000).to_bytes(2, "little") + b"N" * 4000
    for number in range(5):
        uid = f"1.2.3.{number}"
        indexer.offer(spool.store(replace(RECEIVED, sop_instance_uid=uid, dataset=name))[0])

    indexer.start()
    indexer.stop(limit_s=20)

    assert store.batches == [2, 2, 1]
    assert len(store.told) == 5


@pytest.mark.parametrize(("quiet_s", "gathered_s"), [(30.0, 2.0), (1.0, 0.25)])
def test_rows_of_a_series_look_at_no_time_like_its_end(spool, quiet_s, gathered_s):
    """P4: instances that come without a pause are gathered for a part of the quiet period only."""
    stored, now = put(spool), [100.0]
    indexer = indexing(UnsureStore(), spool, quiet_s=quiet_s, seconds=lambda: now[0])

    class Busy:
        def wait(self, seconds):
            now[0] += seconds
            indexer.offer(stored)
            return False

    indexer._stopping = Busy()
    indexer.offer(stored)

    batch = indexer._next_batch()

    assert now[0] - 100.0 == pytest.approx(gathered_s)
    assert len(batch) > 1


def test_one_bad_arrival_costs_its_batch_nothing(spool, caplog):
    """P1: instances that waited together with one that is refused get their rows all the same."""
    store = UnsureStore(lambda key: ValueError("MARKER") if key == "1.2.3.2" else None)
    indexer = indexing(store, spool, first_retry_s=0.001)
    for number in (1, 2, 3):
        indexer.offer(put(spool, number))

    indexer.start()
    store.wait_for(("index", "1.2.3.1"), ("index", "1.2.3.3"))
    indexer.stop(limit_s=20)

    assert {key for _, key in store.told} == {"1.2.3.1", "1.2.3.3"}
    assert "MARKER" not in caplog.text


def test_bad_arrivals_do_not_keep_a_series_waiting(spool, caplog):
    """P4: files that cannot be read cost the rows behind them no time: a quiet period may run."""
    stored = [put(spool, number) for number in (1, 2, 3, 4)]
    for unreadable in stored[:3]:
        unreadable.path.unlink()
    store = UnsureStore()
    indexer = indexing(store, spool, first_retry_s=600)
    for instance in stored:
        indexer.offer(instance)

    indexer.start()
    store.wait_for(("index", "1.2.3.4"))
    indexer.stop(limit_s=20)

    assert [key for _, key in store.told] == ["1.2.3.4"]
    assert indexer.waiting_digests == set()
    assert caplog.text.count("index.failed") == 3


def test_p7_offer_never_blocks_or_fails(spool, monkeypatch):
    """P7: with the queue full an arrival is left to the files, and offering still returns."""
    monkeypatch.setattr("tfkt_node.reception.indexing.LONGEST_QUEUE", 2)
    store = UnsureStore()
    now = [0.0]
    indexer = indexing(store, spool, seconds=lambda: now[0])
    for number in range(1, 6):
        indexer.offer(put(spool, number))
    waiting = indexer.waiting, len(indexer.waiting_digests)

    indexer.start()
    store.wait_for(("index", "1.2.3.2"))
    now[0] += RECONCILE_AFTER_S
    store.wait_for(*(("index", f"1.2.3.{number}") for number in range(1, 6)))
    indexer.stop(limit_s=20)

    assert waiting == (2, 2)
