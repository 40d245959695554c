"""The proof of the audit: the chain of events holds, and the rows are as it tells (promise P9).

What an event holds is compared: of each outcome the verdict, score, flag, reason, criteria and
bundle; of each object the digest of its file; of each delivery its end. The rest of the rows, such
as the scores of single slices, proves nothing by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit import chain
from tfkt_node.audit.chain import ChainFault, ChainReport, EventKind
from tfkt_node.audit.database import Database
from tfkt_node.audit.schema import bundles, criteria, deliveries, events, objects, verdicts
from tfkt_node.records import DeliveryState, Outcome

OUTCOMES = {
    EventKind.REVISION_ASSESSED: Outcome.ASSESSED,
    EventKind.REVISION_NOT_ASSESSED: Outcome.NOT_ASSESSED,
    EventKind.REVISION_FAILED: Outcome.FAILED,
}
ENDS = {
    EventKind.DELIVERY_SENT: DeliveryState.SENT,
    EventKind.DELIVERY_DEAD: DeliveryState.DEAD,
    EventKind.DELIVERY_RETRIED: DeliveryState.PENDING,
}

TOLD = (events.c.seq, events.c.subject, events.c.kind.label("event"), events.c.detail.label("told"))

Fault = tuple[int | None, str]
"""Number of the event that a row contradicts, None where there is none, and a sentence."""


def verify(store: Database, anchor: tuple[int, str] | None = None) -> ChainReport:
    """Tell whether the chain holds, and whether the rows are as it tells.

    anchor: number and hash of a head noted outside.
    """
    report = chain.verify(store, anchor)
    if not report.holds:
        return report
    with store.reading() as connection:
        for seq, why in _faults(connection):
            return replace(report, fault=ChainFault.CONTRADICTED, first_bad=seq, message=why)
    return report


def _faults(connection: sa.Connection) -> Iterator[Fault]:
    yield from _faults_of_verdicts(connection)
    yield from _faults_of_objects(connection)
    yield from _faults_of_deliveries(connection)


def _faults_of_verdicts(connection: sa.Connection) -> Iterator[Fault]:
    told = sa.select(
        *TOLD,
        *(verdicts.c[name] for name in ("outcome", "verdict", "confidence", "score", "flagged")),
        *(verdicts.c[name] for name in ("reason", "no_report_because")),
        criteria.c.digest.label("criteria"),
        bundles.c.digest.label("bundle"),
    ).select_from(
        events.outerjoin(verdicts, verdicts.c.revision_id == _number("revision"))
        .outerjoin(criteria, criteria.c.id == verdicts.c.criteria_id)
        .outerjoin(bundles, bundles.c.id == verdicts.c.bundle_id)
    )
    for row in _each(connection, told.where(events.c.kind.in_(OUTCOMES))):
        yield from _differences(row, {"outcome": OUTCOMES[row.event], **json.loads(row.told)})
    yield from _untold(connection, "revision", verdicts.c.revision_id, OUTCOMES, sa.true())


def _faults_of_objects(connection: sa.Connection) -> Iterator[Fault]:
    told = sa.select(*TOLD, objects.c.sha256).select_from(
        events.outerjoin(objects, objects.c.id == _number("object"))
    )
    for row in _each(connection, told.where(events.c.kind == EventKind.OBJECT_BUILT)):
        yield from _differences(row, json.loads(row.told))
    made = objects.c.sha256.is_not(None)
    yield from _untold(connection, "object", objects.c.id, [EventKind.OBJECT_BUILT], made)


def _faults_of_deliveries(connection: sa.Connection) -> Iterator[Fault]:
    last = sa.select(sa.func.max(events.c.seq)).where(events.c.kind.in_(ENDS))
    told = sa.select(*TOLD, deliveries.c.state, deliveries.c.status).select_from(
        events.outerjoin(deliveries, deliveries.c.id == _number("delivery"))
    )
    for row in _each(connection, told.where(events.c.seq.in_(last.group_by(events.c.subject)))):
        yield from _differences(row, {"state": ENDS[row.event], **json.loads(row.told)})
    ended = deliveries.c.state != DeliveryState.PENDING
    yield from _untold(connection, "delivery", deliveries.c.id, ENDS, ended)


def _number(name: str) -> sa.ColumnElement[int]:
    """Take the id out of an event's subject, such as `revision:12`."""
    return sa.cast(sa.func.substr(events.c.subject, len(name) + 2), sa.BigInteger)


def _each(connection: sa.Connection, told: sa.Select[Any]) -> Iterator[Any]:
    in_order = told.order_by(events.c.seq)
    with connection.execution_options(yield_per=1000).execute(in_order) as rows:
        yield from rows


def _differences(row: Any, told: dict[str, Any]) -> Iterator[Fault]:
    """Compare what an event tells with the columns of the same names beside it."""
    have = row._mapping
    for name in sorted(told.keys() & have.keys()):
        if told[name] != have[name]:
            why = f"its row has {name} {have[name]}" if have[name] is not None else "no row has it"
            yield row.seq, f"event {row.seq} tells of {row.subject} {name} {told[name]}; {why}"


def _untold(
    connection: sa.Connection,
    name: str,
    number: sa.Column[Any],
    kinds: Any,
    which: sa.ColumnElement[bool],
) -> Iterator[Fault]:
    """Find rows that no event tells of."""
    subject = sa.literal(f"{name}:") + sa.cast(number, sa.Text)
    is_told = sa.exists().where(events.c.subject == subject, events.c.kind.in_(kinds))
    found = connection.scalar(sa.select(number).where(which, ~is_told).limit(1))
    if found is not None:
        yield None, f"no event tells of {name}:{found} as its row is"
