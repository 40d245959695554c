"""Takes what is due for a destination from the audit store, sends it, and writes down the end.

Every state is a row: a kill at any point costs one attempt, and the same object is sent again under
the same UID. Destinations share nothing here; the node gives each its own turns.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Protocol

from tfkt_node.delivery import store_scu
from tfkt_node.delivery.statuses import Answer, Lost, NoAssociation, Receipt, lost
from tfkt_node.records import ClaimedDelivery, Misconfigured, Permanent
from tfkt_node.settings import Delivery, Settings

log = logging.getLogger(__name__)

BATCH = 20
"""Objects sent over one association."""

LEFT = "left for the next association: the last one ended, or its time was up"


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

    def delivery_left(
        self, delivery_id: int, owner: str, why: str, next_attempt_at: datetime
    ) -> bool:
        """Give back a delivery that was not tried."""

    def deliveries_due(self, destination: str, error_begins: str, now: datetime) -> int:
        """Make due what waits for its next attempt with such an error."""

    def delivery_lost(self, delivery_id: int, owner: str, error: str, at: datetime) -> bool:
        """Record that the file of the object is lost, which is to be made anew first."""

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
    """Send one batch of what is due for a destination; return how many objects arrived.

    What waits because no association came about is due at once when one has.

    The caller comes back for the rest, so that a backlog never stands in the way of a stop. Only
    what was tried is charged with an attempt; where no association came about, the first object is,
    and the others wait with it.
    clock: aware UTC. rng: jitter of the retries. Raises Misconfigured for an unknown destination.
    """
    peer = next((peer for peer in settings.destinations if peer.name == destination), None)
    if peer is None:
        raise Misconfigured(f"peers: no peer named {destination!r} has deliver = true")
    begin_within_s = settings.scoring.lease_s / 2
    # The claims outlast the slowest batch, so that nobody else takes what is on its way.
    lease_s = store_scu.longest_send_s(settings.delivery, begin_within_s)
    claimed = _claim(store, destination, owner, clock(), lease_s)
    write_down = partial(_write_down, store, settings.delivery, owner, clock, rng)
    untried: deque[ClaimedDelivery] = deque()
    for item in claimed:
        if _is_whole(item):
            untried.append(item)
        else:
            write_down(item, lost())
    arrived, why, due_at = 0, LEFT, None
    paths = [item.path for item in untried]
    with closing(store_scu.send(peer, settings.delivery, paths, begin_within_s)) as answers:
        # Each is written down as it comes: what was acknowledged is not sent again, come what may.
        for answer in answers:
            again_at = write_down(untried.popleft(), answer)
            arrived += isinstance(answer, Receipt)
            if isinstance(answer, NoAssociation):
                why, due_at = str(answer), again_at
    if arrived:  # what waited for nothing but this destination need not wait longer
        store.deliveries_due(destination, store_scu.place(peer), clock())
    for item in untried:
        store.delivery_left(item.delivery_id, owner, why, due_at or clock())
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


def _is_whole(item: ClaimedDelivery) -> bool:
    """Tell whether the file of an object is what was made."""
    try:
        return hashlib.sha256(item.path.read_bytes()).hexdigest() == item.sha256
    except OSError:
        return False


def _write_down(  # noqa: PLR0913, PLR0917
    store: Deliveries,
    delivery: Delivery,
    owner: str,
    clock: Callable[[], datetime],
    rng: Random,
    item: ClaimedDelivery,
    answer: Answer,
) -> datetime | None:
    """Record the answer to an object; return when it is due again, None where it is not."""
    at, again_at = clock(), None
    told = f"delivery={item.delivery_id} destination={item.destination} attempt={item.attempts + 1}"
    if isinstance(answer, Receipt):
        held = store.delivery_sent(item.delivery_id, owner, answer.status, answer.comment, at)
        level, said = logging.INFO, f"delivery.sent {told} status=0x{answer.status:04X}"
    elif isinstance(answer, Lost):
        error = f"{answer}; cure: {answer.cure}"
        held = store.delivery_lost(item.delivery_id, owner, error, at)
        level, said = logging.ERROR, f'delivery.file_lost {told} why="{answer}"'
    elif isinstance(answer, Permanent):
        error = f"{answer}; cure: {answer.cure}"
        held = store.delivery_dead(item.delivery_id, owner, error, at)
        level, said = logging.ERROR, f'delivery.dead {told} why="{answer}"'
    else:
        wait_s = retry_after_s(
            item.attempts, delivery.first_retry_s, delivery.longest_retry_s, rng.random()
        )
        again_at = at + timedelta(seconds=wait_s)
        held = store.delivery_retry(item.delivery_id, owner, str(answer), again_at, at)
        level, said = logging.WARNING, f'delivery.later {told} wait_s={wait_s:.0f} why="{answer}"'
    if held:
        log.log(level, "%s", said)
    else:  # the claim ran out: the row stands as whoever took it over leaves it
        log.warning("delivery.claim_lost %s", told)
    return again_at
