"""Rows and events of a store, for what no method of the store tells."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from tfkt_node.audit.database import Database
from tfkt_node.audit.schema import metadata


def rows_of(store: Database, table: str) -> list[dict[str, Any]]:
    """Return all rows of a table in the order of its primary key."""
    found = metadata.tables[table]
    with store.reading() as connection:
        rows = connection.execute(sa.select(found).order_by(*found.primary_key))
        return [dict(row) for row in rows.mappings()]


def told(store: Database) -> list[tuple[str, str, dict[str, Any], str]]:
    """Return (kind, subject, detail, actor) of every event, in order."""
    return [
        (row["kind"], row["subject"], json.loads(row["detail"]), row["actor"])
        for row in rows_of(store, "events")
    ]
