"""A store on either database, and instances, headers and assessments to put in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tfkt_node.audit.store import Store


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    yield opened
    opened.close()
