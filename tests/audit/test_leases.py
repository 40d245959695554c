"""What a dead process held is released, and nothing is stuck."""

from __future__ import annotations

import pytest

from tfkt_node.audit.leases import OBJECT_ATTEMPTS
from tfkt_node.audit.store import Store

from .making import LEASE_S, at, build, claim, claimed, close, decide, fill
from .rows import rows_of, told


def test_revision_of_a_dead_process_is_scored_by_another(store: Store) -> None:
    """P4: a process that died while scoring costs one attempt, under whatever name it returns."""
    fill(store, 1)
    close(store, 30)
    claimed(store, 31, "dead")

    assert store.release_expired_leases(at(31 + LEASE_S)) == 0
    assert store.release_expired_leases(at(32 + LEASE_S)) == 1

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
        store.release_expired_leases(at(100 * turn + 99))

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

    assert store.release_expired_leases(at(100)) == 1

    again = store.claim_delivery("alive", "pacs", at(100), LEASE_S)
    assert again is not None
    assert again.attempts == 1
    assert not store.delivery_sent(again.delivery_id, "dead", 0, "", at(101))
    assert store.delivery_sent(again.delivery_id, "alive", 0, "", at(102))


def test_object_that_kills_every_process_fails_in_the_end(store: Store) -> None:
    """P5: an object whose making ends the process is FAILED with a reason, not tried for ever."""
    fill(store, 1)
    close(store, 30)
    decide(store, 31, "v1")

    for turn in range(OBJECT_ATTEMPTS):
        assert store.claim_object(f"owner {turn}", at(100 * turn + 40), LEASE_S) is not None
        assert store.release_expired_leases(at(100 * turn + 139)) == 1

    assert store.claim_object("owner", at(9999), LEASE_S) is None
    (row,) = rows_of(store, "objects")
    assert row["state"] == "FAILED"
    assert "ended" in row["error"]
    assert store.retry_deliveries(None, "operator", "mended", at(500)) == 1
    assert store.claim_object("owner", at(501), LEASE_S) is not None


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

    assert store.release_expired_leases(at(9999)) == 0
    assert [row["lease_owner"] for row in rows_of(store, table)] == [None]
    assert claim(store, 9999) is None
