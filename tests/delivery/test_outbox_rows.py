"""What becomes of a delivery stands in the rows of the real audit store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.audit.making import LEASE_S, at, close, decide, fill, made
from tests.delivery.destination import KOS, QUICK, Destination
from tfkt_node.audit.store import Store
from tfkt_node.delivery import outbox
from tfkt_node.records import RETRY_DELIVERIES, DeliveryRow, DeliveryState, ObjectState
from tfkt_node.settings import Peer, Settings

Objects = Callable[[int], list[Path]]


@pytest.fixture
def store(database_url: str, objects: Objects) -> Iterator[Store]:
    """Give a store that owes the SR of one verdict to `pacs`, built and due."""
    (path,) = objects(1)
    opened = Store(database_url)
    fill(opened, 2)
    close(opened, 30)
    decide(opened, 31, "v1")
    owed = opened.claim_object("builder", at(40), LEASE_S)
    assert owed is not None
    whole = replace(made(owed.object_id), content=path.read_bytes())
    assert opened.object_built(owed.object_id, "builder", whole, path, at(41))
    yield opened
    opened.close()


def deliver(store: Store, peer: Peer, now_s: float) -> int:
    settings = Settings(peers=(peer,), delivery=QUICK)
    return outbox.deliver_due(store, settings, "pacs", "owner", lambda: at(now_s), Random(1))


def row(store: Store) -> DeliveryRow:
    (found,) = store.delivery_rows()
    return found


def test_object_that_arrived_is_sent_and_stays_so(store: Store) -> None:
    """P5: PENDING ends in SENT, and nothing is sent again."""
    with Destination() as pacs:
        assert [1, 0, 0] == [deliver(store, pacs.peer, now_s) for now_s in (50, 51, 9999)]

    assert (DeliveryState.SENT, 1, None) == (
        row(store).state,
        row(store).attempts,
        row(store).next_attempt_at,
    )
    assert 1 == len(pacs.received)


def test_refused_object_is_dead_with_its_cure_until_an_operator_retries(store: Store) -> None:
    """A refusal ends in DEAD with words; after the cure the same object arrives."""
    with Destination(classes=[KOS]) as pacs:
        assert [0, 0] == [deliver(store, pacs.peer, now_s) for now_s in (50, 9999)]
    assert (DeliveryState.DEAD, 1) == (row(store).state, row(store).attempts)
    assert "; cure: enable them" in row(store).last_error

    assert 1 == store.retry_deliveries("pacs", "operator", "class enabled", at(60))

    with Destination() as pacs:
        assert 1 == deliver(store, pacs.peer, 61)
    assert (DeliveryState.SENT, "") == (row(store).state, row(store).last_error)


def test_object_whose_file_is_gone_waits_until_it_is_made_anew(
    store: Store, tmp_path: Path
) -> None:
    """P5: the row says what to do; after the retry the same object arrives."""
    (path,) = tmp_path.glob("*.dcm")
    content = path.read_bytes()
    path.unlink()
    with Destination() as pacs:
        assert [0, 0] == [deliver(store, pacs.peer, now_s) for now_s in (50, 9999)]
        assert (ObjectState.FAILED, 0) == (row(store).object_state, row(store).attempts)
        assert f"{RETRY_DELIVERIES}, which makes the object anew" in row(store).object_error

        assert 1 == store.retry_deliveries(None, "operator", "disk mended", at(60))
        again = store.claim_object("builder", at(61), LEASE_S)
        assert again is not None
        path.write_bytes(content)
        whole = replace(made(again.object_id), content=content)
        assert store.object_built(again.object_id, "builder", whole, path, at(62))
        assert 1 == deliver(store, pacs.peer, 63)


def test_object_that_was_not_tried_is_free_again_without_an_attempt(store: Store) -> None:
    """P5: what is given back is due when it was said to be, for whoever comes next."""
    item = store.claim_delivery("owner", "pacs", at(50), LEASE_S)
    assert item is not None

    assert store.delivery_left(item.delivery_id, "owner", "left", at(60))

    assert not store.delivery_left(item.delivery_id, "owner", "left", at(60))
    assert (0, "left") == (row(store).attempts, row(store).last_error)
    assert store.claim_delivery("other", "pacs", at(59), LEASE_S) is None
    assert store.claim_delivery("other", "pacs", at(60), LEASE_S) is not None


def test_failed_attempt_waits_in_its_row_until_it_is_due(store: Store) -> None:
    """A busy destination costs an attempt; the row says why, and when the next one is due."""
    with Destination(statuses=[0xA700]) as pacs:
        assert 0 == deliver(store, pacs.peer, 50)
        failed = row(store)
        assert (DeliveryState.PENDING, 1) == (failed.state, failed.attempts)
        assert "out of resources (0xA700)" in failed.last_error
        assert failed.next_attempt_at is not None
        wait_s = (failed.next_attempt_at - at(50)).total_seconds()
        assert 0.5 <= wait_s <= 1

        assert [0, 1] == [deliver(store, pacs.peer, 50 + late_s) for late_s in (0.4, wait_s)]

    assert (DeliveryState.SENT, 2) == (row(store).state, row(store).attempts)
