"""A STABLE revision is claimed by one process and ends in exactly one outcome."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tfkt_node import __version__
from tfkt_node.audit.store import Store
from tfkt_node.records import Assessment, InstanceState, ObjectKind, Reason

from .making import (
    assessed,
    at,
    claim,
    claimed,
    close,
    decide,
    failed,
    fill,
    header,
    instance,
)
from .rows import rows_of, told


def commit(
    store: Store, revision_id: int, owner: str, now_s: float, assessment: Assessment
) -> bool:
    return store.commit_assessment(
        revision_id,
        owner,
        assessment,
        f"verdict at {now_s}",
        {kind: ["pacs", "archive"] for kind in (ObjectKind.SR, ObjectKind.KOS)},
        "",
        at(now_s),
    )


def test_open_revision_cannot_be_claimed(store: Store) -> None:
    """P4: a revision is scored only when its list is frozen."""
    fill(store, 2)

    assert claim(store, 10) is None


def test_claimed_revision_is_nobody_elses(store: Store) -> None:
    """P4: a revision has one owner until its lease ends."""
    fill(store, 2)
    close(store, 30)

    assert claim(store, 31, "one") is not None
    assert claim(store, 32, "two") is None
    assert store.series_rows()[0].state == "SCORING"


@pytest.mark.parametrize("kinds", [(), (ObjectKind.SR,)])
def test_revision_knows_whether_one_before_it_owed_a_report(
    store: Store, kinds: tuple[ObjectKind, ...]
) -> None:
    """P5: only what was said of the series has to be answered."""
    fill(store, 2)
    close(store, 30)
    assert not decide(store, 31, "v1", kinds).answers_earlier
    fill(store, 1, series="1.2.10", first=50, now_s=40)
    fill(store, 1, first=3, now_s=41)
    close(store, 80)

    other, later = claimed(store, 81), claimed(store, 82)

    assert [False, bool(kinds)] == [other.answers_earlier, later.answers_earlier]


def test_live_series_go_before_backlog_and_each_oldest_first(store: Store) -> None:
    """P8: a backfill yields to what the scanner sends now."""
    for number, now_s in enumerate((0, 100, 5000, 5100)):
        series = f"1.2.9.{number}"
        fill(store, 1, series=series, first=10 * number, now_s=now_s)
        close(store, now_s + 30)

    order = [claimed(store, 5200).revision_id for _ in range(4)]

    assert order == [3, 4, 1, 2]


def test_revisions_of_a_series_are_scored_one_after_another(store: Store) -> None:
    """P4: a later revision waits for the earlier one, for its report supersedes that one's."""
    fill(store, 1)
    close(store, 30)
    fill(store, 1, first=2, now_s=40)
    close(store, 70)
    first = claimed(store, 71)

    assert first.number == 1
    assert claim(store, 72) is None

    assert commit(store, first.revision_id, "owner", 73, assessed(first.instances))
    assert claimed(store, 74).number == 2


def test_next_attempt_waits_for_its_time(store: Store) -> None:
    """P4: a failed attempt is counted, told, and tried again when it is due."""
    fill(store, 1)
    close(store, 30)
    first = claimed(store, 31)

    assert store.record_failed_attempt(
        first.revision_id, "owner", Reason.SCORER_CRASHED, "signal 9", at(60), at(32)
    )

    assert claim(store, 59) is None
    second = claimed(store, 60)
    assert (first.attempts, second.attempts) == (0, 1)
    assert told(store)[-1] == (
        "ATTEMPT_FAILED",
        "revision:1",
        {"reason": "SCORER_CRASHED", "detail": "signal 9", "attempts": 1},
        "node",
    )


def test_given_back_revision_is_due_at_once_and_not_counted(store: Store) -> None:
    """P4: stopping the node in good order costs a revision no attempt."""
    fill(store, 1)
    close(store, 30)
    first = claimed(store, 31)

    assert store.give_back_revision(first.revision_id, "owner")

    assert claimed(store, 31).attempts == 0


def test_who_lost_the_lease_changes_nothing(store: Store) -> None:
    """P4: after its lease went to another, a process that wakes up writes nothing."""
    fill(store, 1)
    close(store, 30)
    late = claimed(store, 31, "late")
    store.release_expired_leases(at(100), "sweeper")
    claimed(store, 101, "new")
    before = rows_of(store, "revisions"), told(store)

    assert not store.renew_revision(late.revision_id, "late", at(500))
    assert not store.give_back_revision(late.revision_id, "late")
    assert not store.record_failed_attempt(
        late.revision_id, "late", Reason.SCORER_ERROR, "", at(500), at(102)
    )
    assert not commit(store, late.revision_id, "late", 103, assessed(late.instances))

    assert (rows_of(store, "revisions"), told(store)) == before
    assert rows_of(store, "verdicts") == []


def test_renewed_lease_outlives_its_first_end(store: Store) -> None:
    """P4: a long revision keeps its owner as long as the owner renews."""
    fill(store, 1)
    close(store, 30)
    revision = claimed(store, 31)

    assert store.renew_revision(revision.revision_id, "owner", at(200))

    assert store.release_expired_leases(at(199), "sweeper") == 0
    assert store.release_expired_leases(at(201), "sweeper") == 1


def test_commit_writes_all_that_is_owed_at_once(store: Store) -> None:
    """P5: verdict, slices, instances, objects and deliveries come in one transaction."""
    fill(store, 3)
    close(store, 30)
    revision = claimed(store, 31)

    assert commit(store, revision.revision_id, "owner", 40, assessed(revision.instances))

    (verdict,) = rows_of(store, "verdicts")
    assert verdict["decided_at"] == at(40)
    assert (verdict["score"], verdict["low"], verdict["high"]) == (2.0, 1.5, 2.5)
    assert verdict["attributes"] == b"attributes"
    assert verdict["software_version"] == __version__
    assert len(rows_of(store, "slice_scores")) == 3
    assert {row["state"] for row in rows_of(store, "instances")} == {"SCORED"}
    assert [(row["kind"], row["state"]) for row in rows_of(store, "objects")] == [
        ("SR", "OWED"),
        ("KOS", "OWED"),
    ]
    owed = [(row["object_id"], row["destination"]) for row in rows_of(store, "deliveries")]
    assert owed == [(1, "pacs"), (1, "archive"), (2, "pacs"), (2, "archive")]
    kind, subject, detail, _ = told(store)[-1]
    assert (kind, subject, detail["verdict"]) == ("REVISION_ASSESSED", "revision:1", "LIMITED")
    assert claim(store, 41) is None


def test_commit_that_does_not_fit_writes_nothing(store: Store) -> None:
    """P5: a commit that fails in the middle leaves the revision as it was."""
    fill(store, 2)
    close(store, 30)
    revision = claimed(store, 31)
    stranger = replace(revision.instances[0], digest="f" * 64)
    before = rows_of(store, "revisions")

    with pytest.raises(ValueError, match="not in the revision's list"):
        commit(store, revision.revision_id, "owner", 40, assessed((stranger,)))

    assert rows_of(store, "revisions") == before
    assert rows_of(store, "verdicts") == rows_of(store, "objects") == []
    assert commit(store, revision.revision_id, "owner", 41, assessed(revision.instances))


def test_last_failure_is_an_outcome(store: Store) -> None:
    """P4: a revision FAILED for good says why, and so do its instances."""
    fill(store, 2)
    close(store, 30)
    revision = claimed(store, 31)

    assert commit(store, revision.revision_id, "owner", 40, failed(revision.instances))

    (row,) = store.series_rows()
    assert (row.state, row.reason, row.flagged) == ("FAILED", Reason.SCORER_CRASHED, False)
    states = {(row["state"], row["reason"]) for row in rows_of(store, "instances")}
    assert states == {(InstanceState.NOT_ASSESSED, Reason.SCORER_CRASHED)}
    assert told(store)[-1][0] == "REVISION_FAILED"


def test_silent_outcome_says_why_no_report_is_owed(store: Store) -> None:
    """P5: a verdict that owes no report says so, and owes no delivery."""
    fill(store, 1)
    close(store, 30)

    decide(store, 31, "v1", kinds=())

    assert rows_of(store, "verdicts")[0]["no_report_because"] == "LOCALIZER"
    assert rows_of(store, "objects") == rows_of(store, "deliveries") == []
    assert told(store)[-1][2]["no_report_because"] == "LOCALIZER"


@pytest.mark.parametrize("second", [None, "association"])
def test_clock_that_was_set_back_makes_no_later_version_older(
    store: Store, second: str | None
) -> None:
    """P3: what came later is scored. Of two rebuilt from files, the one with the later time is."""
    first = instance(1, "a", received_s=3600, association_id=second)
    store.index_instance(first, header(1), at(3600))
    store.index_instance(instance(1, "b", received_s=10, association_id=second), header(1), at(10))
    close(store, 7300)

    decide(store, 7301, "v1")

    states = [(row["state"], row["reason"]) for row in rows_of(store, "instances")]
    scored, older = ("SCORED", None), ("NOT_ASSESSED", "SUPERSEDED")
    assert states == ([older, scored] if second else [scored, older])


def test_older_version_is_superseded_at_the_commit(store: Store) -> None:
    """P3: of a changed instance the latest received is scored, and the older one says why not."""
    fill(store, 1)
    store.index_instance(instance(1, "b", received_s=5), header(1), at(5))
    close(store, 40)
    revision = claimed(store, 41)
    store.index_instance(instance(1, "c", received_s=42), header(1), at(42))

    assert commit(store, revision.revision_id, "owner", 43, assessed(revision.instances))

    states = [(row["state"], row["reason"]) for row in rows_of(store, "instances")]
    assert states == [("NOT_ASSESSED", "SUPERSEDED"), ("SCORED", None), ("INDEXED", None)]
