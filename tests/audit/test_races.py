"""What several threads and processes do at once, one of them does."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tfkt_node.audit import proof
from tfkt_node.audit.store import IndexResult, Store, upgrade

from .making import (
    BACKLOG_AFTER_S,
    LEASE_S,
    assessed,
    at,
    build,
    claimed,
    close,
    decide,
    fill,
    header,
    instance,
)
from .rows import rows_of, told

THREADS = 8


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Run `work` with 0, 1, … on THREADS threads that start together."""
    ready = threading.Barrier(THREADS)

    def start(number: int) -> Any:
        ready.wait(30)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


def test_same_instance_on_many_threads_gets_one_row(store: Store) -> None:
    """P3: associations that race with the same instance make one row and one revision."""
    results = at_once(lambda _: store.index_instance(instance(1), header(1), at(0)))

    assert sorted(results) == [IndexResult.DUPLICATE] * (THREADS - 1) + [IndexResult.NEW]
    assert len(rows_of(store, "instances")) == len(rows_of(store, "revisions")) == 1
    assert [kind for kind, *_ in told(store)] == ["REVISION_OPENED"]


def test_series_on_many_threads_gets_one_open_revision(store: Store) -> None:
    """P4: instances of a new series that race share one series and one revision."""
    results = at_once(lambda n: store.index_instance(instance(n), header(n), at(0)))

    assert results == [IndexResult.NEW] * THREADS
    assert len(rows_of(store, "series")) == len(rows_of(store, "revisions")) == 1


def test_instance_that_races_with_the_close_is_never_lost(store: Store) -> None:
    """P4: an arrival is in the frozen list, or in the next revision, whoever is first."""
    fill(store, 1)
    (quiet,) = store.quiet_revisions(at(30), 30)

    def race(number: int) -> object:
        if number == 0:
            return store.close_revision(quiet.revision_id, quiet.last_arrival_at, at(30))
        return store.index_instance(instance(100 + number), header(number), at(30))

    at_once(race)

    close(store, 90)
    last = rows_of(store, "revisions")[-1]
    listed = [r for r in rows_of(store, "revision_instances") if r["revision_id"] == last["id"]]
    assert len(listed) == THREADS


def test_each_revision_is_claimed_once(store: Store) -> None:
    """P4: many workers share the revisions, and none is scored twice."""
    for number in range(THREADS - 2):
        fill(store, 1, series=f"1.2.9.{number}", first=number)
    close(store, 30)

    claims = at_once(lambda n: store.claim_revision(f"owner {n}", at(31), LEASE_S, BACKLOG_AFTER_S))

    got = sorted(one.revision_id for one in claims if one is not None)
    # A worker may come back empty while another looks at the same row; it asks again.
    assert len(got) == len(set(got)) <= THREADS - 2
    assert got
    rest = THREADS - 2 - len(got)
    assert len({claimed(store, 32).revision_id for _ in range(rest)} | set(got)) == THREADS - 2


def test_one_commit_of_a_revision_wins(store: Store) -> None:
    """P5: a verdict and what it owes are written once, even under one owner."""
    fill(store, 1)
    close(store, 30)
    revision = claimed(store, 31)
    results = at_once(
        lambda n: store.commit_assessment(
            revision.revision_id,
            "owner",
            assessed(revision.instances),
            f"v{n}",
            {},
            "",
            at(32),
        )
    )

    assert sorted(results) == [False] * (THREADS - 1) + [True]
    assert len(rows_of(store, "verdicts")) == 1


def test_object_and_delivery_are_claimed_once(store: Store) -> None:
    """P5: many workers, one copy."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1", destinations=("pacs",))

    objects = at_once(lambda n: store.claim_object(f"owner {n}", at(32), LEASE_S))
    assert sum(one is not None for one in objects) == 1
    store.release_expired_leases(at(200), "sweeper")
    build(store, 205)
    deliveries = at_once(lambda n: store.claim_delivery(f"owner {n}", "pacs", at(206), LEASE_S))
    assert sum(one is not None for one in deliveries) == 1


@pytest.mark.station
def test_processes_that_work_at_once_lose_and_double_nothing(database_url: str) -> None:
    """P4, P5: receivers and scorers in several processes end every series in one verdict."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work_alone, args=(database_url, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)

    assert [worker.exitcode for worker in workers] == [0] * 4
    store = Store(database_url)
    left = store.claim_revision("last", at(500), LEASE_S, BACKLOG_AFTER_S)
    states = [row.state for row in store.series_rows()]
    verdicts = rows_of(store, "verdicts")
    report = proof.verify(store)
    store.close()
    assert left is None
    assert states == ["ASSESSED"] * 6
    assert len(verdicts) == 6
    assert report.holds, report.message


def work_alone(url: str, number: int) -> None:
    """Send six series as three others do too, then close and decide whatever is due."""
    store = Store(url)
    for series in range(6):
        fill(store, 4, series=f"1.2.9.{series}", first=10 * series)
    close(store, 60)
    for turn in range(40):
        revision = store.claim_revision(f"owner {number}", at(61), LEASE_S, BACKLOG_AFTER_S)
        if revision is not None:
            store.commit_assessment(
                revision.revision_id,
                f"owner {number}",
                assessed(revision.instances),
                f"v{number}.{turn}",
                {},
                "",
                at(62),
            )
    store.close()


def test_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    """Two nodes that start on an empty database make one schema."""
    results = at_once(lambda _: upgrade(empty_database_url))

    assert [before for before, _ in results].count(None) == 1
    assert len({after for _, after in results}) == 1
