"""The tables of the audit store, alike on SQLite and PostgreSQL.

Unique constraints do the work that a look before an insert cannot do under concurrency: one row an
instance, one OPEN revision a series, one verdict a revision, one object of a kind a verdict, one
delivery an object and destination, one successor an event. States are CHECKed; reasons are not, for
their list grows.

Databases are made by `migrations/` only, which add the triggers that refuse to change or delete an
event; a test compares what they make with what stands here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from tfkt_node.records import (
    AssociationEnd,
    Confidence,
    DeliveryState,
    InstanceState,
    ObjectKind,
    ObjectState,
    Outcome,
    Population,
    RevisionState,
    Verdict,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime to the microsecond. Raises ValueError for a naive one."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn any zone into UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a zone was given; expected an aware UTC datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite keeps no zone, PostgreSQL answers in the session's: both become UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def canonical_json(value: Any) -> str:
    """Write JSON in the one form that is hashed: ASCII, keys sorted, no spaces, finite numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class CanonicalJson(TypeDecorator[Any]):
    """JSON kept as the text of `canonical_json`, so that both databases hold the same bytes."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write the canonical text."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read it."""
        return None if value is None else json.loads(value)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, values: type[StrEnum]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def in_state(table: sa.Table, state: StrEnum) -> sa.ColumnElement[bool]:
    """Compare a state with a literal: with a parameter SQLite would pass a partial index over."""
    return table.c.state == sa.literal_column(f"'{state}'")


def _index_in_state(name: str, state: StrEnum, *columns: sa.Column[Any], unique: bool) -> None:
    """Index the rows in one state: what is done stays out, and a claim costs the same for ever."""
    where = sa.text(f"state = '{state}'")
    sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _id() -> sa.Column[int]:
    # INTEGER on SQLite, where only that spelling is the row id itself.
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def _link(column: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(column, sa.BigInteger, sa.ForeignKey(target), nullable=nullable)


def _lease() -> tuple[sa.Column[Any], ...]:
    """Columns of a claim: a random owner for each process start, never a host name."""
    return (
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", UtcDateTime),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", UtcDateTime),
    )


installation = sa.Table(
    "installation",
    metadata,
    _id(),
    sa.Column("node_uid", sa.Text, nullable=False),
    sa.CheckConstraint("id = 1", name="single"),
)

associations = sa.Table(
    "associations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("calling_ae", sa.Text, nullable=False),
    sa.Column("called_ae", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("how", sa.Text),
    _one_of("how", AssociationEnd),
)

series = sa.Table(
    "series",
    metadata,
    _id(),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("study_uid", sa.Text, nullable=False),
    sa.Column("series_uid", sa.Text, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("accession_number", sa.Text, nullable=False),
    sa.Column("study_date", sa.Text, nullable=False),
    sa.Column("series_description", sa.Text, nullable=False),
    sa.Column("calling_ae", sa.Text, nullable=False, comment="of the last arrival"),
    sa.Column("attributes", sa.LargeBinary, nullable=False, comment="of the first instance"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("patient_id", "study_uid", "series_uid"),
    sa.Index(None, "series_uid"),
    sa.Index(None, "accession_number"),
)

instances = sa.Table(
    "instances",
    metadata,
    _id(),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sop_class_uid", sa.Text, nullable=False),
    sa.Column("sop_instance_uid", sa.Text, nullable=False),
    sa.Column("transfer_syntax_uid", sa.Text, nullable=False),
    sa.Column("calling_ae", sa.Text, nullable=False),
    # No foreign key: an instance is indexed even if the database was away at its association.
    sa.Column("association_id", sa.Text),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("indexed_at", UtcDateTime, nullable=False),
    _link("series_id", "series.id", nullable=True),
    sa.Column("instance_number", sa.BigInteger),
    sa.Column("expected_count", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("missing_since", UtcDateTime),
    _one_of("state", InstanceState),
    sa.Index(None, "series_id", "sop_instance_uid"),
    sa.Index(None, "sop_instance_uid"),
)

revisions = sa.Table(
    "revisions",
    metadata,
    _id(),
    _link("series_id", "series.id"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("last_arrival_at", UtcDateTime, nullable=False),
    sa.Column("quiet_since", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime),
    sa.Column("evidence", CanonicalJson, comment="why the series was judged complete"),
    *_lease(),
    _one_of("state", RevisionState),
    sa.UniqueConstraint("series_id", "number"),
)
_index_in_state("uq_revisions_open", RevisionState.OPEN, revisions.c.series_id, unique=True)
_index_in_state(
    "ix_revisions_stable", RevisionState.STABLE, revisions.c.last_arrival_at, unique=False
)

revision_instances = sa.Table(
    "revision_instances",
    metadata,
    sa.Column("revision_id", sa.BigInteger, sa.ForeignKey("revisions.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, comment="0-based"),
    _link("instance_id", "instances.id"),
    sa.Column("state", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    _one_of("state", InstanceState),
    sa.UniqueConstraint("revision_id", "instance_id"),
)

criteria = sa.Table(
    "criteria",
    metadata,
    _id(),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("population", sa.Text, nullable=False),
    sa.Column("diagnostic_from", sa.Double, nullable=False),
    sa.Column("limited_from", sa.Double, nullable=False),
    sa.Column("flag_at", sa.Text, nullable=False),
    sa.Column("min_slices", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    _one_of("population", Population),
    _one_of("flag_at", Verdict),
    # Adults and children may share their thresholds, and so the digest.
    sa.UniqueConstraint("digest", "population"),
)

bundles = sa.Table(
    "bundles",
    metadata,
    _id(),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="the UIDs of the objects derive from it"),
    sa.Column(
        "revision_id", sa.BigInteger, sa.ForeignKey("revisions.id"), nullable=False, unique=True
    ),
    sa.Column("decided_at", UtcDateTime, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text),
    sa.Column("confidence", sa.Text),
    sa.Column("confidence_reasons", CanonicalJson, nullable=False),
    sa.Column("flagged", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("deciding_stack", sa.Integer),
    sa.Column("stacks", CanonicalJson, nullable=False, comment="summaries, without slices"),
    _link("criteria_id", "criteria.id"),
    _link("bundle_id", "bundles.id", nullable=True),
    sa.Column("engine", sa.Text),
    sa.Column("precision", sa.Text),
    sa.Column("attributes", sa.LargeBinary, nullable=False),
    sa.Column("software_version", sa.Text, nullable=False),
    sa.Column("no_report_because", sa.Text, nullable=False),
    _one_of("outcome", Outcome),
    _one_of("verdict", Verdict),
    _one_of("confidence", Confidence),
    sa.CheckConstraint("(outcome = 'ASSESSED') = (verdict IS NOT NULL)", name="verdict_if"),
)

slice_scores = sa.Table(
    "slice_scores",
    metadata,
    sa.Column("verdict_id", sa.Text, sa.ForeignKey("verdicts.id"), primary_key=True),
    sa.Column("stack", sa.Integer, primary_key=True, comment="index into verdicts.stacks"),
    sa.Column("position", sa.Integer, primary_key=True, comment="0-based, along the stack"),
    _link("instance_id", "instances.id"),
    sa.Column("frame", sa.Integer),
    sa.Column("position_mm", sa.Double),
    sa.Column("score", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("in_scope", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("outline", CanonicalJson),
)

objects = sa.Table(
    "objects",
    metadata,
    _id(),
    _link("series_id", "series.id"),
    sa.Column("verdict_id", sa.Text, sa.ForeignKey("verdicts.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("sop_class_uid", sa.Text),
    sa.Column("sop_instance_uid", sa.Text, unique=True),
    sa.Column("own_series_uid", sa.Text, comment="the series that the object is in"),
    sa.Column("path", sa.Text),
    sa.Column("sha256", sa.Text, comment="of the whole file"),
    # Kept from the claim on, so that a rebuild names the same predecessor for ever.
    _link("predecessor_id", "objects.id", nullable=True),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.Column("built_at", UtcDateTime),
    *_lease(),
    _one_of("kind", ObjectKind),
    _one_of("state", ObjectState),
    sa.UniqueConstraint("verdict_id", "kind"),
    sa.Index(None, "series_id"),
)
_index_in_state("ix_objects_owed", ObjectState.OWED, objects.c.id, unique=False)

deliveries = sa.Table(
    "deliveries",
    metadata,
    _id(),
    _link("object_id", "objects.id"),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owed_at", UtcDateTime, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("status", sa.Integer, comment="DIMSE status of the C-STORE response"),
    sa.Column("comment", sa.Text, nullable=False, server_default=""),
    sa.Column("last_error", sa.Text, nullable=False, server_default=""),
    *_lease(),
    _one_of("state", DeliveryState),
    sa.UniqueConstraint("object_id", "destination"),
)
_index_in_state(
    "ix_deliveries_pending",
    DeliveryState.PENDING,
    deliveries.c.destination,
    deliveries.c.next_attempt_at,
    unique=False,
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False, comment="canonical JSON; the text is hashed"),
    sa.Column("prev_hash", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Index(None, "subject"),
)
