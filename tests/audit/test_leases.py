"""What a dead process held is released, and nothing is stuck."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfkt_node.audit.leases import OBJECT_ATTEMPTS
from tfkt_node.audit.store import Store
from tfkt_node.records import ObjectKind

from .making import LEASE_S, assessed, at, build, claim, claimed, close, decide, fill, made
from .rows import rows_of, told


def test_revision_of_a_dead_process_is_scored_by_another(store: Store) -> None:
    """P4: a process that died while scoring costs one attempt, under whatever name it returns."""
    fill(store, 1)
    close(store, 30)
    claimed(store, 31, "dead")

    assert store.release_expired_leases(at(31 + LEASE_S), "sweeper") == 0
    assert store.release_expired_leases(at(32 + LEASE_S), "sweeper") == 1

    assert told(store)[-1] == (
        "LEASE_RELEASED",
        "revision:1",
        {"attempts": 1, "state": "STABLE"},
        "node",
    )
    assert claimed(store, 100, "alive").attempts == 1


def test_revision_that_kills_every_process_can_be_ended(store: Store) -> None:
    """P4: each death is counted, so that the claimer sees when to end it as FAILED."""
    fill(store, 1)
    close(store, 30)
    attempts = []
    for turn in range(3):
        attempts.append(claimed(store, 100 * turn + 31, f"owner {turn}").attempts)
        store.release_expired_leases(at(100 * turn + 99), "sweeper")

    assert attempts == [0, 1, 2]
    assert claimed(store, 400).attempts == 3


def test_delivery_of_a_dead_process_is_sent_by_another(store: Store) -> None:
    """P5: a process that died between the send and the record leaves nothing unsent."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1")
    build(store, 32)
    store.claim_delivery("dead", "pacs", at(33), LEASE_S)
    assert store.claim_delivery("alive", "pacs", at(34), LEASE_S) is None

    assert store.release_expired_leases(at(100), "sweeper") == 1

    assert store.claim_delivery("alive", "pacs", at(104), LEASE_S) is None
    again = store.claim_delivery("alive", "pacs", at(105), LEASE_S)
    assert again is not None
    assert again.attempts == 1
    assert not store.delivery_sent(again.delivery_id, "dead", 0, "", at(106))
    assert store.delivery_sent(again.delivery_id, "alive", 0, "", at(107))


def test_object_that_kills_every_process_fails_in_the_end(store: Store) -> None:
    """P5: an object whose making ends the process is FAILED with a reason, not tried for ever."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1")

    for turn in range(OBJECT_ATTEMPTS):
        assert store.claim_object(f"owner {turn}", at(200 * turn + 40), LEASE_S) is not None
        assert store.release_expired_leases(at(200 * turn + 139), "sweeper") == 1

    assert store.claim_object("owner", at(9999), LEASE_S) is None
    (row,) = rows_of(store, "objects")
    assert row["state"] == "FAILED"
    assert "ended" in row["error"]
    assert store.retry_deliveries(None, "operator", "mended", at(700)) == 1
    assert store.claim_object("owner", at(701), LEASE_S) is not None


@pytest.mark.parametrize("table", ["revisions", "objects", "deliveries"])
def test_what_ended_holds_no_lease(store: Store, table: str) -> None:
    """P5: a sweep touches nothing that is done."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1")
    build(store, 32)
    delivery = store.claim_delivery("owner", "pacs", at(33), LEASE_S)
    assert delivery is not None
    store.delivery_sent(delivery.delivery_id, "owner", 0, "", at(34))

    assert store.release_expired_leases(at(9999), "sweeper") == 0
    assert [row["lease_owner"] for row in rows_of(store, table)] == [None]
    assert claim(store, 9999) is None


def test_living_owner_keeps_what_it_holds(store: Store) -> None:
    """P5: the sweep takes nothing from the process that runs it, however slow the other end is."""
    fill(store, 2)
    close(store, 30)
    decide(store, 31, "v1")
    build(store, 32)
    delivery = store.claim_delivery("living", "pacs", at(33), LEASE_S)
    fill(store, 1, first=3, now_s=40)
    close(store, 80)
    decide(store, 81, "v2")
    owed = store.claim_object("living", at(82), LEASE_S)
    fill(store, 1, first=4, now_s=90)
    close(store, 130)
    revision = claimed(store, 131, "living")
    assert delivery is not None
    assert owed is not None

    assert store.release_expired_leases(at(9999), "living") == 0

    assert store.renew_revision(revision.revision_id, "living", at(10_100))
    assert store.object_failed(owed.object_id, "living", "no space", at(10_000))
    assert store.delivery_sent(delivery.delivery_id, "living", 0, "", at(10_000))


def test_owner_takes_back_what_its_earlier_turn_left(store: Store) -> None:
    """P4, P5: a turn that ended without a record holds nothing for ever, though its owner lives."""
    fill(store, 1)
    close(store, 30)
    claimed(store, 31, "living")
    assert claim(store, 91, "living") is None
    again = claimed(store, 92, "living")
    assert again.attempts == 1
    store.commit_assessment(
        again.revision_id,
        "living",
        assessed(again.instances),
        "v1",
        {ObjectKind.SR: ["pacs", "archive"]},
        "",
        at(93),
    )
    assert store.claim_object("living", at(100), LEASE_S) is not None
    assert store.claim_object("living", at(160), LEASE_S) is None
    assert store.claim_object("living", at(161), LEASE_S) is None
    assert store.claim_object("living", at(166), LEASE_S) is not None
    store.object_built(1, "living", made(1), Path("/o"), at(167))
    slow = store.claim_delivery("living", "archive", at(200), LEASE_S)
    store.claim_delivery("living", "pacs", at(200), LEASE_S)
    assert slow is not None

    assert store.claim_delivery("living", "pacs", at(261), LEASE_S) is None

    delivery = store.claim_delivery("living", "pacs", at(266), LEASE_S)
    assert delivery is not None
    assert delivery.attempts == 1
    assert store.delivery_sent(slow.delivery_id, "living", 0, "", at(267))


def test_lost_delivery_waits_longer_each_time(store: Store) -> None:
    """P5: a destination slower than the lease does not get the same object without a pause."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1")
    build(store, 32)
    now_s, waits = 40.0, []

    for turn in range(12):
        assert store.claim_delivery(f"owner {turn}", "pacs", at(now_s), LEASE_S) is not None
        now_s += LEASE_S + 1
        assert store.release_expired_leases(at(now_s), "sweeper") == 1
        (row,) = store.delivery_rows()
        assert row.next_attempt_at is not None
        waits.append((row.next_attempt_at - at(now_s)).total_seconds())
        now_s += waits[-1]

    assert waits[:3] == [5, 10, 20]
    assert waits[-2:] == [3600, 3600]
