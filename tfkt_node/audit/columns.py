"""Kinds of columns that both databases keep alike, and what several tables are made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


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


def one_of(column: str, values: type[StrEnum]) -> sa.CheckConstraint:
    """CHECK that a column holds a member of an enum (or null)."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def in_state(table: sa.Table, state: StrEnum) -> sa.ColumnElement[bool]:
    """Compare a state with a literal, so that a statement prepared once uses the state's index."""
    return table.c.state == sa.literal_column(f"'{state}'")


def index_in_state(name: str, state: StrEnum, *columns: sa.Column[Any], unique: bool) -> None:
    """Index the rows in one state: what is done stays out, and a claim costs the same for ever."""
    where = sa.text(f"state = '{state}'")
    sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


def index_leases(name: str, table: sa.Table) -> None:
    """Index the rows that somebody holds: the sweep costs the same for ever."""
    where = sa.text("lease_until IS NOT NULL")
    sa.Index(name, table.c.lease_until, sqlite_where=where, postgresql_where=where)


def row_id() -> sa.Column[int]:
    """Make the number of a row."""
    # INTEGER on SQLite, where only that spelling is the row id itself.
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def link_to(column: str, target: str, *, nullable: bool = False) -> sa.Column[int]:
    """Make a reference to the row of another table."""
    return sa.Column(column, sa.BigInteger, sa.ForeignKey(target), nullable=nullable)


def lease_columns() -> tuple[sa.Column[Any], ...]:
    """Columns of a claim: a random owner for each process start, never a host name."""
    return (
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", UtcDateTime),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", UtcDateTime),
    )
