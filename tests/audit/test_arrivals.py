"""Instances get rows, series get revisions, and the same again makes nothing new."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tfkt_node.audit import chain
from tfkt_node.audit.store import IndexResult, Store, upgrade
from tfkt_node.records import (
    AssociationEnd,
    InstanceHeader,
    InstanceOutcome,
    InstanceState,
    Reason,
    StoredInstance,
)

from .making import assessed, at, claim, claimed, close, decide, failed, fill, header, instance
from .rows import rows_of, told

STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.33"


def test_first_instance_opens_a_revision_and_the_next_joins_it(store: Store) -> None:
    """P4: every series has one OPEN revision while instances arrive, told once."""
    assert store.index_instance(instance(1), header(1), at(0)) is IndexResult.NEW
    assert store.index_instance(instance(2), header(2), at(1)) is IndexResult.NEW

    (row,) = store.series_rows()
    assert (row.revision, row.state, row.instances) == (1, "OPEN", 2)
    assert row.last_arrival_at == at(1)
    assert [kind for kind, *_ in told(store)] == ["REVISION_OPENED"]


def test_duplicate_changes_nothing(store: Store) -> None:
    """P3, P4: the same instance again, however often, makes nothing and holds nothing up."""
    fill(store, 1)
    before = told(store)

    results = [store.index_instance(instance(1), header(1), at(now)) for now in (10, 20, 29)]

    assert results == [IndexResult.DUPLICATE] * 3
    assert store.quiet_revisions(at(29), 30) == []
    assert len(store.quiet_revisions(at(30), 30)) == 1
    assert len(rows_of(store, "instances")) == 1
    assert told(store) == before


@pytest.mark.parametrize("decided", [False, True])
def test_duplicate_after_the_close_makes_nothing_new(store: Store, *, decided: bool) -> None:
    """P3: the same instance again, after its revision was closed or decided, opens none."""
    fill(store, 2)
    close(store, 30)
    if decided:
        decide(store, 31, "v1")
    before = told(store), rows_of(store, "revisions")

    result = store.index_instance(instance(1, received_s=40), header(1), at(40))

    assert result is IndexResult.DUPLICATE
    assert (told(store), rows_of(store, "revisions")) == before


def test_other_bytes_under_a_known_uid_open_the_next_revision(store: Store) -> None:
    """P3: both versions are kept, and the latest received stands in the next revision."""
    fill(store, 3)
    close(store, 30)
    decide(store, 31, "v1")

    result = store.index_instance(instance(2, "changed", received_s=60), header(2), at(60))

    assert result is IndexResult.NEW
    assert close(store, 90)
    revision = claimed(store, 91)
    assert revision.number == 2
    assert [ref.digest for ref in revision.instances] == [
        instance(1).digest,
        instance(2, "changed").digest,
        instance(3).digest,
    ]
    kind, subject, detail, _ = told(store)[3]
    assert (kind, subject) == ("INSTANCE_CONFLICT", "instance:4")
    assert detail["others"] == [2]
    assert detail["same_series"] is True


def test_later_version_wins_by_receipt_not_by_the_order_of_rows(store: Store) -> None:
    """P3: rows rebuilt from files in any order list the latest received version."""
    for now_s, version, received_s in ((20, "late", 9), (21, "early", 3)):
        rebuilt = instance(1, version, received_s=received_s, association_id=None)
        store.index_instance(rebuilt, header(1), at(now_s))

    close(store, 60)

    (ref,) = claimed(store, 61).instances
    assert ref.digest == instance(1, "late").digest


def test_other_patient_under_a_known_series_uid_is_a_series_of_its_own(store: Store) -> None:
    """P3: two patients under one UID are two series and an event without a name."""
    fill(store, 1)

    store.index_instance(instance(2), header(2, patient="SECRET^NAME"), at(1))

    assert len(store.series_rows()) == 2
    conflict = [event for event in told(store) if event[0] == "SERIES_CONFLICT"]
    assert [subject for _, subject, *_ in conflict] == ["series:2"]
    assert conflict[0][2]["others"] == [1]
    assert "SECRET" not in str(told(store))


def batch(*numbers_and_versions: tuple[int, str]) -> list[tuple[StoredInstance, InstanceHeader]]:
    return [
        (instance(number, version, received_s=second), header(number, attributes=version.encode()))
        for second, (number, version) in enumerate(numbers_and_versions)
    ]


def test_instances_of_a_batch_are_told_apart(store: Store) -> None:
    """P3: a duplicate within a batch is one, and so is one of a row that was there before."""
    store.index_instances(batch((1, "a"), (2, "a")), at(0))

    results = store.index_instances(batch((3, "a"), (2, "a"), (3, "a"), (4, "a")), at(1))

    assert results == [
        IndexResult.NEW, IndexResult.DUPLICATE, IndexResult.DUPLICATE, IndexResult.NEW
    ]  # fmt: skip
    (row,) = store.series_rows()
    assert (row.revision, row.instances, row.last_arrival_at) == (1, 4, at(1))
    assert [kind for kind, *_ in told(store)] == ["REVISION_OPENED"]


def test_batch_comes_to_what_its_instances_come_to_one_by_one(store: Store, tmp_path: Path) -> None:
    """P3, P4: versions, other patients, other classes and lost files: the same rows and events."""
    alone = f"sqlite:///{tmp_path / 'alone.db'}"
    upgrade(alone)
    one_by_one = Store(alone)
    first = batch((1, "a"), (2, "a"), (1, "b"), (3, "a"), (1, "a"), (1, "c"))
    patient = (instance(7), header(7, patient="OTHER"))
    aside = (instance(8, sop_class_uid=STRUCTURED_REPORT), header(8))
    version_of_aside = (instance(8, "b", sop_class_uid=STRUCTURED_REPORT), header(8))
    whole = [*first, patient, aside, aside, version_of_aside]
    again = batch((2, "a"), (2, "b"))

    for one in whole:
        one_by_one.index_instance(*one, at(0))
    store.index_instances(whole, at(0))
    for each in (one_by_one, store):
        each.record_missing_file(instance(3).digest, at(1))
    for one in [*again, first[3]]:
        one_by_one.index_instance(*one, at(2))
    store.index_instances([*again, first[3]], at(2))

    def essence(of: Store) -> list[object]:
        ids = {row["id"]: row["digest"] for row in rows_of(of, "instances")}
        events = [
            (kind, ids.get(int(subject.split(":")[1])) if "instance" in subject else subject,
             [ids.get(other) for other in detail.get("others", [])], detail.get("same_series"))
            for kind, subject, detail, _ in told(of)
        ]  # fmt: skip
        rows = [
            (row["digest"], row["series_id"], row["state"], row["reason"], row["missing_since"])
            for row in rows_of(of, "instances")
        ]
        copied = [(row["patient_id"], row["attributes"]) for row in rows_of(of, "series")]
        revisions = [
            (row["series_id"], row["number"], row["state"], row["quiet_since"])
            for row in rows_of(of, "revisions")
        ]
        return [sorted(map(str, part)) for part in (rows, copied, revisions, events)]

    expected = essence(one_by_one)
    one_by_one.close()
    assert expected == essence(store)
    assert chain.verify(store).holds


@pytest.mark.parametrize(
    ("sop_class_uid", "own", "reason"),
    [
        (STRUCTURED_REPORT, False, Reason.NOT_CT),
        (STRUCTURED_REPORT, True, Reason.OWN_OBJECT),
    ],
)
def test_what_is_no_ct_is_set_aside_with_its_reason(
    store: Store, sop_class_uid: str, *, own: bool, reason: Reason
) -> None:
    """P6: an instance outside the CT classes is kept and listed, and makes no revision."""
    other = instance(1, sop_class_uid=sop_class_uid)

    results = [store.index_instance(other, header(1, own=own), at(now)) for now in (0, 1)]

    assert results == [IndexResult.SET_ASIDE, IndexResult.SET_ASIDE]
    (row,) = rows_of(store, "instances")
    assert (row["state"], row["reason"]) == (InstanceState.SET_ASIDE, reason)
    assert rows_of(store, "revisions") == []
    assert [(kind, detail["reason"]) for kind, _, detail, _ in told(store)] == [
        ("INSTANCE_SET_ASIDE", reason)
    ]


def test_list_is_in_order_of_instance_number_then_uid(store: Store) -> None:
    """P12: the same instances give the same list, in whatever order they arrived."""
    numbers = {11: 2, 12: None, 13: 1, 14: 2, 2: None}
    for uid, number in numbers.items():
        store.index_instance(instance(uid), header(number), at(0))

    close(store, 30)

    uids = [ref.sop_uid.removeprefix("1.2.3.") for ref in claimed(store, 31).instances]
    assert uids == ["13", "11", "14", "12", "2"]


def test_close_is_refused_when_an_instance_came_meanwhile(store: Store) -> None:
    """P4: an instance that arrives between the look and the close stays in the revision."""
    fill(store, 1)
    (quiet,) = store.quiet_revisions(at(30), 30)
    store.index_instance(instance(2), header(2), at(31))

    assert not store.close_revision(quiet.revision_id, quiet.last_arrival_at, at(31))
    assert close(store, 61)
    assert len(claimed(store, 62).instances) == 2


def test_revision_is_closed_once(store: Store) -> None:
    """P4: a second close, or one of a revision that is not there, does nothing."""
    fill(store, 1)
    (quiet,) = store.quiet_revisions(at(30), 30)

    closed = [
        store.close_revision(quiet.revision_id, quiet.last_arrival_at, at(30)) for _ in range(2)
    ]

    assert closed == [True, False]
    assert not store.close_revision(99, at(0), at(30))


def test_closing_keeps_the_evidence(store: Store) -> None:
    """P4: the audit says why a series was judged complete."""
    for name in ("first", "second"):
        store.open_association(name, "SCANNER", "TFKT_NODE", "192.0.2.1", at(0))
    assert store.end_association("first", AssociationEnd.RELEASED, at(2))
    assert not store.end_association("first", AssociationEnd.ABORTED, at(3))
    for number, name in ((1, "first"), (2, "second"), (3, "second"), (4, None)):
        new = instance(number, association_id=name)
        store.index_instance(new, header(number, expected=5), at(0))

    close(store, 45.5)

    assert rows_of(store, "revisions")[0]["evidence"] == {
        "instances": 4,
        "expected_count": 5,
        "last_arrival_at": at(0).isoformat(),
        "quiet_s": 45.5,
        "associations": [
            {"id": None, "how": None, "instances": 1},
            {"id": "first", "how": "RELEASED", "instances": 1},
            {"id": "second", "how": None, "instances": 2},
        ],
    }


def test_associations_that_a_crash_left_open_are_lost(store: Store) -> None:
    """P4: evidence names no association as open whose node is dead; others' are left alone."""
    day_s = 86_400
    for name, opened_s in {"old": 0, "ended": 1, "late": day_s, "new": day_s + 60}.items():
        store.open_association(name, "SCANNER", "TFKT_NODE", "192.0.2.1", at(opened_s))
    store.end_association("ended", AssociationEnd.RELEASED, at(2))
    with store.reading() as connection:
        alone = connection.dialect.name == "sqlite"

    count = store.end_lost_associations(at(day_s + 60), at(day_s + 90))

    ended = {row["id"]: (row["how"], row["ended_at"]) for row in rows_of(store, "associations")}
    lost = ("LOST", at(day_s + 90))
    assert ended["old"] == lost
    assert ended["ended"] == ("RELEASED", at(2))
    assert ended["late"] == (lost if alone else (None, None))
    assert ended["new"] == (None, None)
    assert count == (2 if alone else 1)


def test_quiet_period_starts_anew_at_boot(store: Store) -> None:
    """P4: what was OPEN when the node stopped waits a whole quiet period after its start."""
    fill(store, 1)

    assert store.restart_quiet_periods(at(1000)) == 1

    assert store.quiet_revisions(at(1029), 30) == []
    (quiet,) = store.quiet_revisions(at(1030), 30)
    assert quiet.last_arrival_at == at(0)
    assert close(store, 1030)
    assert store.restart_quiet_periods(at(1031)) == 0


def test_missing_file_is_recorded_once(store: Store) -> None:
    """P1: a file gone from the spool is told, once, and its row stays."""
    fill(store, 1)
    digest = instance(1).digest

    assert [store.record_missing_file(digest, at(now)) for now in (5, 6)] == [True, False]
    assert not store.record_missing_file("0" * 64, at(7))
    assert [event[:2] for event in told(store)][1:] == [("FILE_MISSING", "instance:1")]
    assert store.known_digests() == {digest}


def test_instance_whose_file_was_lost_opens_a_revision_when_it_comes_back(store: Store) -> None:
    """P4: a series that failed for a missing file is scored when the file is sent again."""
    fill(store, 1)
    close(store, 30)
    revision = claimed(store, 31)
    store.commit_assessment(
        revision.revision_id, "owner", failed(revision.instances), "v1", {}, "", at(31)
    )
    store.record_missing_file(instance(1).digest, at(32))

    assert store.index_instance(instance(1), header(1), at(40)) is IndexResult.DUPLICATE

    assert close(store, 70)
    assert claimed(store, 71).number == 2
    assert claim(store, 72, "other") is None


@pytest.mark.parametrize("of", ["instance", "revision"])
def test_file_found_missing_by_the_scorer_heals_when_it_is_sent_again(
    store: Store, of: str
) -> None:
    """P4: a file lost at run time is marked with the outcome, and its return is an arrival."""
    fill(store, 2)
    close(store, 30)
    revision = claimed(store, 31)
    lost, other = revision.instances
    outcome = replace(failed(revision.instances), reason=Reason.FILE_MISSING)
    if of == "instance":
        outcome = replace(
            assessed((other,)),
            instances=(
                InstanceOutcome(lost.digest, InstanceState.NOT_ASSESSED, Reason.FILE_MISSING),
                InstanceOutcome(other.digest, InstanceState.SCORED, None),
            ),
        )

    assert store.commit_assessment(revision.revision_id, "owner", outcome, "v1", {}, "", at(32))

    first, second = rows_of(store, "instances")
    assert first["missing_since"] == at(32)
    assert second["missing_since"] == (None if of == "instance" else at(32))
    assert ("FILE_MISSING", "instance:1") in [event[:2] for event in told(store)]
    assert not store.record_missing_file(lost.digest, at(33))
    store.index_instance(instance(1), header(1), at(40))
    assert close(store, 70)
    assert claimed(store, 71).number == 2


def test_first_instance_gives_the_attributes_and_the_last_the_caller(store: Store) -> None:
    """A report copies one instance's attributes; the listing names who sent last."""
    store.index_instance(instance(1), header(1, attributes=b"one"), at(0))
    second = replace(instance(2), calling_ae="OTHER")
    store.index_instance(second, header(2, attributes=b"two"), at(1))
    rebuilt = replace(instance(3), calling_ae="")
    store.index_instance(rebuilt, header(3, attributes=b"three"), at(2))

    close(store, 40)

    assert claimed(store, 41).attributes == b"one"
    assert store.series_rows()[0].calling_ae == "OTHER"


@pytest.mark.parametrize(
    ("received_s", "attributes", "number"), [(50, b"corrected", "A2"), (-1, b"attributes", "A1")]
)
def test_corrected_version_corrects_its_series(
    store: Store, received_s: float, attributes: bytes, number: str
) -> None:
    """P3: a re-send with corrected data is reported with these; the verdict before keeps its own.

    A version received earlier, whose row was rebuilt later, corrects nothing.
    """
    fill(store, 2)
    close(store, 30)
    decide(store, 31, "v1")
    corrected = replace(
        header(1, attributes=b"corrected"),
        accession_number="A2",
        study_date="20260401",
        series_description="Thorax",
    )

    store.index_instance(instance(1, "corrected", received_s=received_s), corrected, at(50))

    assert close(store, 80)
    assert claimed(store, 81).attributes == attributes
    assert store.report_record("v1").attributes == b"attributes"
    (row,) = store.series_rows()
    assert row.accession_number == number
    assert (
        (row.study_date == "20260401") is (row.series_description == "Thorax") is (number == "A2")
    )


def test_file_that_heals_prolongs_an_open_revision(store: Store) -> None:
    """P4: an instance whose file was lost and came back is waited for like a new one."""
    fill(store, 1)
    store.record_missing_file(instance(1).digest, at(10))

    assert store.index_instance(instance(1), header(1), at(20)) is IndexResult.DUPLICATE

    assert store.quiet_revisions(at(49), 30) == []
    assert len(store.quiet_revisions(at(50), 30)) == 1
    assert [kind for kind, *_ in told(store)] == ["REVISION_OPENED", "FILE_MISSING"]


def test_hostile_text_is_kept_as_well_as_it_can_be(store: Store) -> None:
    """P7: NUL, lone surrogates and endless values in a header do not stop the index."""
    hostile = replace(
        header(1, patient="\0" + "x" * 20_000),
        accession_number="a" * 20_000,
        series_description="Schnitt \0 \udcff ✂",
    )

    assert store.index_instance(instance(1), hostile, at(0)) is IndexResult.NEW
    assert store.index_instance(instance(2), hostile, at(1)) is IndexResult.NEW

    (row,) = store.series_rows()
    assert row.series_description == "Schnitt \N{REPLACEMENT CHARACTER} ? ✂"
    patient = "\N{REPLACEMENT CHARACTER}" + "x" * 20_000
    kept = rows_of(store, "series")[0]["patient_id"]
    assert kept.endswith(hashlib.sha256(patient.encode()).hexdigest())


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_conflicts_are_said_in_the_log(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """P3, P10: two patients under a UID, and replaced instances, are warned of by number."""
    store.index_instances(batch((1, "a"), (2, "a"), (3, "a")), at(0))
    caplog.set_level(logging.INFO)

    store.index_instance(instance(4), header(4, patient="SECRET^NAME"), at(1))
    store.index_instances(batch((1, "b"), (2, "b")), at(2))

    assert lines_of(caplog) == [
        ("WARNING", "series.conflict series=2 others=1"),
        ("INFO", "revision.opened revision=2 series=2 number=1"),
        ("WARNING", "instance.conflict series=1 instances=2 first=5"),
    ]


def test_log_leads_from_a_revision_to_its_series(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """P4: lines of the log name a revision, commands take a series: one line has both."""
    fill(store, 1, series="1.2.10")
    caplog.set_level(logging.INFO)

    fill(store, 2, series="1.2.11", first=2)

    assert lines_of(caplog) == [("INFO", "revision.opened revision=2 series=2 number=1")]


def test_what_is_set_aside_is_said_and_counted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """P6: kept and listed: how many instances are in no series, and why."""
    caplog.set_level(logging.INFO)
    fill(store, 1)
    others = [instance(number, sop_class_uid=STRUCTURED_REPORT) for number in (11, 12, 13)]

    store.index_instances([(one, header(own=one is others[0])) for one in others], at(1))
    store.index_instance(others[2], header(), at(2))

    assert store.set_aside_counts() == {"NOT_CT": 2, "OWN_OBJECT": 1}
    assert lines_of(caplog)[1:] == [
        ("INFO", "instance.set_aside instances=1 reason=OWN_OBJECT"),
        ("INFO", "instance.set_aside instances=2 reason=NOT_CT"),
    ]


def test_conflicts_of_a_series_lead_to_the_others(store: Store) -> None:
    """P3: from either side of a conflict an administrator finds the other."""
    fill(store, 3)  # series 1, rows 1 to 3
    store.index_instance(instance(4), header(4, patient="other"), at(1))  # series 2, row 4
    moved = instance(3, "moved", received_s=2)
    store.index_instance(moved, header(3, series="1.2.10"), at(2))  # series 3, row 5
    store.index_instance(instance(1, "replaced", received_s=3), header(1), at(3))  # row 6
    fill(store, 1, series="1.2.11", first=20)  # series 4, row 7

    found = {number: store.conflicts_of(number) for number in (1, 2, 3, 4)}

    assert {
        number: (one["series_of_the_same_uid"], one["series_of_the_same_instances"])
        for number, one in found.items()
    } == {1: ([2], [3]), 2: ([1], []), 3: ([], [1]), 4: ([], [])}
    assert [
        (event["kind"], event["subject"], event["detail"]["others"])
        for number in (1, 2, 3, 4)
        for event in found[number]["instance_events"]
    ] == [
        ("INSTANCE_CONFLICT", "instance:6", [1]),
        ("INSTANCE_CONFLICT", "instance:5", [3]),
    ]
