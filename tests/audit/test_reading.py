"""An assessment that was committed is read back equal, from the rows alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfkt_node.audit.schema import instances
from tfkt_node.audit.store import Store
from tfkt_node.records import Assessment, EvidenceInstance, InstanceRef, ObjectKind, Population

from .making import CRITERIA, assessed, assessments, at, claimed, close, failed, fill, instance
from .rows import rows_of

Draw = Callable[[tuple[InstanceRef, ...]], Assessment]
CommitAndRead = Callable[[Draw], tuple[Assessment, Assessment]]


@pytest.fixture
def commit_and_read(store: Store) -> CommitAndRead:
    """Give a function that commits an assessment of a new revision, and reads it back."""
    numbers = count(1)

    def run(draw: Draw) -> tuple[Assessment, Assessment]:
        number = next(numbers)
        fill(store, 3, series=f"1.2.9.{number}", first=10 * number, now_s=100 * number)
        close(store, 100 * number + 50)
        revision = claimed(store, 100 * number + 51)
        before = draw(revision.instances)
        verdict_id = f"verdict {number}"
        assert store.commit_assessment(
            revision.revision_id, "owner", before, verdict_id, {}, "", at(0)
        )
        return before, store.report_record(verdict_id).assessment

    return run


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_what_goes_in_comes_out(commit_and_read: CommitAndRead, data: st.DataObject) -> None:
    """P5: any assessment is read back equal, each number to the last digit."""
    before, after = commit_and_read(lambda refs: data.draw(assessments(refs)))

    assert after == before


@pytest.mark.parametrize("draw", [assessed, failed])
def test_plain_assessment_comes_out_with_its_types(
    commit_and_read: CommitAndRead, draw: Draw
) -> None:
    """P5: what is read has the records' types, not only equal values."""
    before, after = commit_and_read(draw)

    assert sorted(repr(after)) == sorted(repr(before))  # physics may be in another order


def test_both_populations_may_share_their_thresholds(commit_and_read: CommitAndRead) -> None:
    """A digest that adults' and children's criteria share keeps both apart."""
    child = replace(CRITERIA, population=Population.CHILD)

    results = [
        commit_and_read(lambda refs, used=used: replace(assessed(refs), criteria=used))
        for used in (CRITERIA, child, CRITERIA)
    ]

    assert [after.criteria for _, after in results] == [CRITERIA, child, CRITERIA]


def test_evidence_is_that_of_the_decided_revision(store: Store) -> None:
    """P5: a report references what it was made of, whatever came later."""
    fill(store, 2)
    close(store, 30)
    revision = claimed(store, 31)
    store.commit_assessment(
        revision.revision_id, "owner", assessed(revision.instances), "v1", {}, "", at(32)
    )
    before = store.report_record("v1")

    fill(store, 2, first=3, now_s=40)
    close(store, 80)

    assert store.report_record("v1") == before
    assert before.evidence == tuple(
        EvidenceInstance(ref.sop_class_uid, ref.sop_uid, number)
        for number, ref in enumerate(revision.instances, start=1)
    )


@pytest.mark.station
def test_commit_of_600_slices_stays_under_a_second(store: Store) -> None:
    """P8: the verdict of a long series does not wait for its rows."""
    fill(store, 1)
    (first,) = rows_of(store, "instances")
    del first["id"]
    rest = [
        {**first, "digest": one.digest, "sop_instance_uid": one.sop_instance_uid}
        for one in map(instance, range(2, 601))
    ]
    with store.writing() as connection:
        connection.execute(instances.insert(), rest)
    close(store, 30)
    revision = claimed(store, 31)
    assessment = assessed(revision.instances)

    began = time.perf_counter()
    store.commit_assessment(
        revision.revision_id, "owner", assessment, "v1", {ObjectKind.SR: ["pacs"]}, "", at(32)
    )
    took_s = time.perf_counter() - began

    assert len(revision.instances) == 600
    assert len(store.report_record("v1").assessment.stacks[0].slices) == 600
    assert took_s < 1.0
