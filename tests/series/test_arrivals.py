"""When a series counts as complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tfkt_node.audit.store import Store, upgrade
from tfkt_node.records import (
    CT_IMAGE,
    InstanceHeader,
    RevisionState,
    StoredInstance,
)
from tfkt_node.series.arrivals import close_quiet_series, restart_quiet_periods
from tfkt_node.settings import Series

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SETTINGS = Series(quiet_s=30)
HEADER = InstanceHeader("P", "1.2", "1.2.3", "CT", "", "", "", None, None, False, b"")


def after(seconds):
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def store(tmp_path):
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    upgrade(url)
    store = Store(url)
    yield store
    store.close()


def arrive(store, tmp_path, number, at):
    digest = f"{number:064x}"
    store.index_instance(
        StoredInstance(
            digest, tmp_path / f"{digest}.dcm", 1, CT_IMAGE, f"1.2.3.{number}",
            "1.2.840.10008.1.2.1", "SCANNER", at,
        ),
        HEADER,
        at,
    )  # fmt: skip


@pytest.mark.station
def test_quiet_series_is_closed_once(store, tmp_path):
    """A series is closed when it has been quiet for the whole period, and only once."""
    arrive(store, tmp_path, 1, NOW)

    closed = [close_quiet_series(store, SETTINGS, after(s)) for s in (0, 29.9, 30, 60)]

    assert closed == [0, 0, 1, 0]
    assert store.series_rows()[0].state is RevisionState.STABLE


@pytest.mark.station
def test_every_instance_starts_the_quiet_period_anew(store, tmp_path):
    """The quiet period counts from the latest instance of the series."""
    arrive(store, tmp_path, 1, NOW)
    arrive(store, tmp_path, 2, after(20))

    assert close_quiet_series(store, SETTINGS, after(40)) == 0
    assert close_quiet_series(store, SETTINGS, after(50)) == 1


@pytest.mark.station
def test_late_instance_opens_the_next_revision(store, tmp_path):
    """P4: what comes after the close waits in a revision of its own, which is closed too."""
    arrive(store, tmp_path, 1, NOW)
    close_quiet_series(store, SETTINGS, after(30))
    arrive(store, tmp_path, 2, after(31))

    assert store.series_rows()[0].revision == 2
    assert close_quiet_series(store, SETTINGS, after(61)) == 1


@pytest.mark.station
def test_quiet_period_starts_anew_at_boot(store, tmp_path):
    """While the node was down nothing could arrive, so that silence does not count."""
    arrive(store, tmp_path, 1, NOW)

    restarted = restart_quiet_periods(store, after(1000))

    assert restarted == 1
    assert close_quiet_series(store, SETTINGS, after(1029)) == 0
    assert close_quiet_series(store, SETTINGS, after(1030)) == 1
