"""Takes what is due for a destination from the audit store, sends it, and writes down the end.

Every state is a row: a kill at any point costs one attempt, and the same object is sent again under
the same UID. Destinations share nothing here; the node gives each its own turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from tfkt_node.delivery import store_scu
from tfkt_node.delivery.statuses import Answer, Receipt
from tfkt_node.records import ClaimedDelivery, Misconfigured, Permanent
from tfkt_node.settings import Delivery, Settings

log = logging.getLogger(__name__)

BATCH = 20
"""Objects sent over one association."""


class Deliveries(Protocol):
    """What this module needs of `audit.store.Store`."""

    def claim_delivery(
        self, owner: str, destination: str, now: datetime, lease_s: float
    ) -> ClaimedDelivery | None:
        """Lease the delivery that is due for longest."""

    def delivery_sent(
        self, delivery_id: int, owner: str, status: int, comment: str, at: datetime
    ) -> bool:
        """Record that the destination has the object."""

    def delivery_retry(
        self, delivery_id: int, owner: str, error: str, next_attempt_at: datetime, at: datetime
    ) -> bool:
        """Record an attempt that failed, and when the next is due."""

    def delivery_dead(self, delivery_id: int, owner: str, error: str, at: datetime) -> bool:
        """Record that it will not work as things stand."""


def deliver_due(  # noqa: PLR0913, PLR0917
    store: Deliveries,
    settings: Settings,
    destination: str,
    owner: str,
    clock: Callable[[], datetime],
    rng: Random,
) -> int:
    """Send all that is due for one destination; return how many objects arrived.

    clock: aware UTC. rng: jitter of the retries. Raises Misconfigured for an unknown destination.
    """
    peer = next((peer for peer in settings.destinations if peer.name == destination), None)
    if peer is None:
        raise Misconfigured(f"peers: no peer named {destination!r} has deliver = true")
    arrived = 0
    # An answer slower than the lease may cost a second sending of the same object, which changes
    # nothing at the destination; a longer lease would hold up everything after a crash.
    lease_s = settings.scoring.lease_s
    while claimed := _claim(store, destination, owner, clock(), lease_s):
        paths = [item.path for item in claimed]
        answers = store_scu.send(peer, settings.delivery, paths, begin_within_s=lease_s / 2)
        for item, answer in zip(claimed, answers, strict=True):
            _write_down(store, settings.delivery, owner, item, answer, clock(), rng)
            arrived += isinstance(answer, Receipt)
    return arrived


def retry_after_s(attempts: int, first_s: float, longest_s: float, jitter: float) -> float:
    """Return the seconds to wait after an attempt that failed.

    attempts: failures before this one. Doubles from `first_s` up to `longest_s`; jitter, 0 to 1,
    takes away up to half, so that what failed together does not return together.
    """
    # 2 ** 64 s is beyond any ceiling, and a float can still hold it.
    grown = min(longest_s, first_s * 2.0 ** min(attempts, 64))
    return grown * (1 - jitter / 2)


def _claim(
    store: Deliveries, destination: str, owner: str, now: datetime, lease_s: float
) -> list[ClaimedDelivery]:
    claimed: list[ClaimedDelivery] = []
    while len(claimed) < BATCH:
        item = store.claim_delivery(owner, destination, now, lease_s)
        if item is None:
            break
        claimed.append(item)
    return claimed


def _write_down(  # noqa: PLR0913, PLR0917
    store: Deliveries,
    delivery: Delivery,
    owner: str,
    item: ClaimedDelivery,
    answer: Answer,
    at: datetime,
    rng: Random,
) -> None:
    told = f"delivery={item.delivery_id} destination={item.destination} attempt={item.attempts + 1}"
    if isinstance(answer, Receipt):
        store.delivery_sent(item.delivery_id, owner, answer.status, answer.comment, at)
        log.info("delivery.sent %s status=0x%04X", told, answer.status)
    elif isinstance(answer, Permanent):
        store.delivery_dead(item.delivery_id, owner, f"{answer}; cure: {answer.cure}", at)
        log.error('delivery.dead %s why="%s"', told, answer)
    else:
        wait_s = retry_after_s(
            item.attempts, delivery.first_retry_s, delivery.longest_retry_s, rng.random()
        )
        next_attempt_at = at + timedelta(seconds=wait_s)
        store.delivery_retry(item.delivery_id, owner, str(answer), next_attempt_at, at)
        log.warning('delivery.later %s wait_s=%.0f why="%s"', told, wait_s, answer)
