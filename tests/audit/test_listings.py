"""What people ask of the audit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tfkt_node.audit.store import Store
from tfkt_node.records import DeliveryState, Misconfigured, Verdict

from .making import at, build, close, decide, fill, header, instance


@pytest.fixture
def filled(store: Store) -> Store:
    """Give a store with a decided series of two revisions and an open one from another caller."""
    fill(store, 2)
    close(store, 30)
    decide(store, 31, "v1", destinations=("pacs", "archive"))
    build(store, 32)
    fill(store, 1, first=3, now_s=100)
    close(store, 130)
    decide(store, 131, "v2", destinations=("pacs",))
    other = replace(instance(9), calling_ae="OTHER")
    other_header = replace(header(9, series="1.2.10"), study_date="20200101", accession_number="A2")
    store.index_instance(other, other_header, at(200))
    return store


def test_series_are_listed_by_their_newest_revision(filled: Store) -> None:
    """P4: one line a series says where it stands, the last arrival first."""
    first, second = filled.series_rows()

    assert (first.series_uid, first.revision, first.state, first.instances) == (
        "1.2.10",
        1,
        "OPEN",
        1,
    )
    assert (first.decided_at, first.verdict, first.score, first.flagged) == (None,) * 3 + (False,)
    assert (second.revision, second.state, second.instances) == (2, "ASSESSED", 3)
    assert (second.verdict, second.confidence, second.score, second.flagged) == (
        Verdict.LIMITED,
        "LOW_CONFIDENCE",
        2.0,
        True,
    )
    assert (second.last_arrival_at, second.decided_at) == (at(100), at(131))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["1.2.10", "1.2.9"]),
        ({"study_date": "20200101"}, ["1.2.10"]),
        ({"accession_number": "A1"}, ["1.2.9"]),
        ({"calling_ae": "OTHER"}, ["1.2.10"]),
        ({"verdict": Verdict.LIMITED}, ["1.2.9"]),
        ({"verdict": Verdict.DIAGNOSTIC}, []),
        ({"verdict": Verdict.LIMITED, "calling_ae": "OTHER"}, []),
    ],
)
def test_series_are_filtered(filled: Store, wanted: dict[str, str], found: list[str]) -> None:
    """A list can be narrowed by what people know of a series."""
    assert [row.series_uid for row in filled.series_rows(**wanted)] == found


@pytest.mark.parametrize("key", [1, "1.2.9"])
def test_series_is_shown_with_all_below_it(filled: Store, key: int | str) -> None:
    """P9: an operator sees revisions, verdicts, objects, deliveries and events of a series."""
    detail = filled.series_detail(key)

    assert detail["series_uid"] == "1.2.9"
    assert [row["state"] for row in detail["revisions"]] == ["ASSESSED", "ASSESSED"]
    assert [row["revision"] for row in detail["verdicts"]] == [1, 2]
    assert detail["instances"] == [
        {"revision": 1, "state": "SCORED", "reason": None, "count": 2},
        {"revision": 2, "state": "SCORED", "reason": None, "count": 3},
    ]
    assert [(row["revision"], row["score"]) for row in detail["stacks"]] == [(1, 2.0), (2, 2.0)]
    assert [(row["revision"], row["state"]) for row in detail["objects"]] == [
        (1, "BUILT"),
        (2, "OWED"),
    ]
    assert [row["destination"] for row in detail["deliveries"]] == ["pacs", "archive", "pacs"]
    assert [row["kind"] for row in detail["events"]] == [
        "REVISION_OPENED",
        "REVISION_CLOSED",
        "REVISION_ASSESSED",
        "OBJECT_BUILT",
        "REVISION_OPENED",
        "REVISION_CLOSED",
        "REVISION_ASSESSED",
    ]
    assert json.dumps(detail, default=str)


def test_unknown_series_is_said(filled: Store) -> None:
    """A wrong number or UID is a message, not an empty page."""
    for key in (99, "1.2.99"):
        with pytest.raises(Misconfigured, match="no such series"):
            filled.series_detail(key)


def test_uid_of_two_patients_asks_which(filled: Store) -> None:
    """P10: two series under one UID are told apart by their numbers, without a name."""
    filled.index_instance(instance(50), header(50, patient="SECRET"), at(300))

    with pytest.raises(Misconfigured, match="1, 3") as caught:
        filled.series_detail("1.2.9")

    assert "SECRET" not in str(caught.value)


def test_deliveries_are_listed_and_filtered(filled: Store) -> None:
    """P5: what is owed to whom, and how far it is."""
    delivery = filled.claim_delivery("owner", "archive", at(140), 60)
    assert delivery is not None
    assert delivery.path == Path("/o")
    filled.delivery_dead(delivery.delivery_id, "owner", "refused", at(141))

    assert [row.destination for row in filled.delivery_rows()] == ["pacs", "archive", "pacs"]
    assert [row.verdict_id for row in filled.delivery_rows(destination="pacs")] == ["v1", "v2"]
    (dead,) = filled.delivery_rows(state=DeliveryState.DEAD)
    assert (dead.destination, dead.last_error, dead.attempts) == ("archive", "refused", 1)
    assert [row.sop_instance_uid for row in filled.delivery_rows()] == ["2.25.1", "2.25.1", ""]


def test_object_that_could_not_be_made_is_listed(filled: Store) -> None:
    """P5: a FAILED object is seen at its deliveries, and by itself where it has none."""
    fill(filled, 1, series="1.2.10", first=60, now_s=300)
    close(filled, 330)
    decide(filled, 331, "v3", destinations=())
    for _ in range(2):
        owed = filled.claim_object("owner", at(340), 60)
        assert owed is not None
        filled.object_failed(owed.object_id, "owner", "no space", at(341))

    *healthy, failed, alone = filled.delivery_rows()

    assert {(row.object_state, row.object_error) for row in healthy} == {("BUILT", "")}
    assert (failed.verdict_id, failed.state, failed.object_state) == ("v2", "PENDING", "FAILED")
    assert (alone.delivery_id, alone.destination, alone.state, alone.attempts) == (
        None,
        "",
        None,
        1,
    )
    assert (alone.verdict_id, alone.object_error) == ("v3", "no space")
    assert alone not in filled.delivery_rows(destination="pacs")
    assert len(filled.delivery_rows(state=DeliveryState.PENDING)) == 3
    filled.retry_deliveries(None, "operator", "space", at(350))
    assert [row.object_state for row in filled.delivery_rows()] == ["BUILT", "BUILT", "OWED"]
