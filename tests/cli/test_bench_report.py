"""`tfkt-node bench report`: what a report costs is printed by a command."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Ran
from tfkt_node.records import ObjectKind

pytestmark = pytest.mark.station


def test_every_kind_of_object_is_measured(command: Callable[..., Ran]) -> None:
    """Time and size of each, in JSON and as a table; an SR of 600 slices is under 150 KB."""
    ran = command("bench", "report", "--rounds", "1", "--json")

    assert 0 == ran.code
    document = json.loads(ran.out)
    rows = {row["kind"]: row for row in document["rows"]}
    assert (600, set(ObjectKind)) == (document["slices"], set(rows))
    assert all(row["ms"] > 0 for row in rows.values())
    assert rows["SR"]["size_kb"] < 150

    table = command("bench", "report", "--slices", "10", "--rounds", "1")
    assert 0 == table.code
    assert "A flagged series of 10 slices" in table.out
    assert all(kind in table.out for kind in ObjectKind)
