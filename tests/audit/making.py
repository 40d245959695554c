"""What the tests of the audit put in: instances, headers, assessments, and steps that many need."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import strategies as st

from tfkt_node.audit.store import Store
from tfkt_node.records import (
    CT_IMAGE,
    Assessment,
    BundleInForce,
    ClaimedObject,
    ClaimedRevision,
    Confidence,
    CriteriaInForce,
    InstanceHeader,
    InstanceOutcome,
    InstanceRef,
    InstanceState,
    MadeObject,
    ObjectKind,
    Outcome,
    Population,
    Reason,
    SliceScore,
    StackSummary,
    StoredInstance,
    Verdict,
)

QUIET_S = 30.0
LEASE_S = 60.0
BACKLOG_AFTER_S = 3600.0
CRITERIA = CriteriaInForce(Population.ADULT, 2.5, 1.5, Verdict.LIMITED, 5, "default", "c" * 64)
BUNDLE = BundleInForce("tfkt-v2-lite", "1.0.0", "b" * 64, "openvino", "fp32")


def at(seconds: float) -> datetime:
    """Return the time of the test, some seconds after its beginning."""
    return datetime(2026, 3, 28, 23, 59, 59, 123456, tzinfo=UTC) + timedelta(seconds=seconds)


def instance(
    number: int,
    version: str = "a",
    *,
    sop_class_uid: str = CT_IMAGE,
    received_s: float = 0,
    association_id: str | None = "association",
) -> StoredInstance:
    digest = hashlib.sha256(f"{number} {version} {sop_class_uid}".encode()).hexdigest()
    return StoredInstance(
        digest=digest,
        path=Path("/spool/instances") / f"{digest}.dcm",
        size_bytes=524288,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="SCANNER",
        received_at=at(received_s),
        association_id=association_id,
    )


def header(
    number: int | None = 1,
    *,
    series: str = "1.2.9",
    patient: str = "patient",
    own: bool = False,
    expected: int | None = None,
    attributes: bytes = b"attributes",
) -> InstanceHeader:
    return InstanceHeader(
        patient_id=patient,
        study_uid="1.2.8",
        series_uid=series,
        modality="CT",
        accession_number="A1",
        study_date="20260328",
        series_description="Abdomen",
        instance_number=number,
        expected_count=expected,
        made_by_this_node=own,
        attributes=attributes,
    )


def fill(
    store: Store, count: int, *, series: str = "1.2.9", first: int = 1, now_s: float = 0
) -> None:
    """Index instances first, first + 1, … of a series at one time."""
    for number in range(first, first + count):
        made = instance(number, received_s=now_s)
        store.index_instance(made, header(number, series=series), at(now_s))


def close(store: Store, now_s: float) -> list[int]:
    """Close what is quiet, and return the ids of what was closed."""
    return [
        quiet.revision_id
        for quiet in store.quiet_revisions(at(now_s), QUIET_S)
        if store.close_revision(quiet.revision_id, quiet.last_arrival_at, at(now_s))
    ]


def claim(store: Store, now_s: float, owner: str = "owner") -> ClaimedRevision | None:
    return store.claim_revision(owner, at(now_s), LEASE_S, BACKLOG_AFTER_S)


def claimed(store: Store, now_s: float, owner: str = "owner") -> ClaimedRevision:
    found = claim(store, now_s, owner)
    assert found is not None
    return found


def decide(
    store: Store,
    now_s: float,
    verdict_id: str,
    kinds: tuple[ObjectKind, ...] = (ObjectKind.SR,),
    destinations: tuple[str, ...] = ("pacs",),
    **changes: object,
) -> ClaimedRevision:
    """Claim the next revision and commit an assessment of it, with changes."""
    revision = claimed(store, now_s)
    committed = store.commit_assessment(
        revision.revision_id,
        "owner",
        replace(assessed(revision.instances), **changes),
        verdict_id,
        dict.fromkeys(kinds, destinations),
        "" if kinds else "LOCALIZER",
        at(now_s),
    )
    assert committed
    return revision


def build(store: Store, now_s: float) -> ClaimedObject:
    """Claim the next object and record it as built."""
    owed = store.claim_object("owner", at(now_s), LEASE_S)
    assert owed is not None
    assert store.object_built(owed.object_id, "owner", made(owed.object_id), Path("/o"), at(now_s))
    return owed


def made(number: int, kind: ObjectKind = ObjectKind.SR) -> MadeObject:
    return MadeObject(kind, "1.2.840.10008.5.1.4.1.1.88.33", f"2.25.{number}", "2.25.7", b"DICM")


def assessed(refs: tuple[InstanceRef, ...], score: float = 2.0) -> Assessment:
    """Return an assessment in which every instance is one slice with the same score."""
    interval = (round(score - 0.5, 4), round(score + 0.5, 4))
    slices = tuple(
        SliceScore(
            digest=ref.digest,
            sop_uid=ref.sop_uid,
            frame=None,
            position_mm=1.25 * index,
            score=score,
            interval=interval,
            in_scope=True,
            reason=None,
            outline=(10, 20, 500, 480),
        )
        for index, ref in enumerate(refs)
    )
    stack = StackSummary(
        acquisition="1",
        orientation="AXIAL",
        kernel="B30f",
        rows=512,
        columns=512,
        score=score,
        interval=interval,
        p10=score,
        minimum=slices[0],
        below_threshold=1.0,
        in_scope=len(slices),
        out_of_scope=0,
        gaps=0,
        repeated=0,
        spacing_mm=1.25,
        physics={"noise_hu": 11.5, "contrast_hu": None},
        slices=slices,
    )
    return Assessment(
        outcome=Outcome.ASSESSED,
        reason=None,
        detail="",
        verdict=Verdict.LIMITED,
        confidence=Confidence.LOW_CONFIDENCE,
        confidence_reasons=(Reason.AGE_UNKNOWN,),
        flagged=True,
        score=score,
        interval=interval,
        deciding_stack=0,
        stacks=(stack,),
        instances=tuple(InstanceOutcome(r.digest, InstanceState.SCORED, None) for r in refs),
        criteria=CRITERIA,
        bundle=BUNDLE,
    )


def failed(refs: tuple[InstanceRef, ...]) -> Assessment:
    """Return what the last failed attempt at a revision ends in."""
    return Assessment(
        outcome=Outcome.FAILED,
        reason=Reason.SCORER_CRASHED,
        detail="signal 9",
        verdict=None,
        confidence=None,
        confidence_reasons=(),
        flagged=False,
        score=None,
        interval=None,
        deciding_stack=None,
        stacks=(),
        instances=(),
        criteria=CRITERIA,
        bundle=None,
    )


# ----------------------------------------------------------------- made by hypothesis

reasons = st.sampled_from(Reason)
words = st.text(max_size=20)
storable_words = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Draw numbers as they are committed: finite, rounded to 4 decimals."""
    drawn = st.floats(low, high, allow_nan=False, allow_infinity=False)
    return drawn.map(lambda value: round(value, 4))


intervals = st.tuples(numbers(0, 4), numbers(0, 4)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def slice_scores(draw: st.DrawFn, refs: tuple[InstanceRef, ...]) -> SliceScore:
    ref = draw(st.sampled_from(refs))
    in_scope = draw(st.booleans())
    side = st.integers(0, 4096)
    return SliceScore(
        digest=ref.digest,
        sop_uid=ref.sop_uid,
        frame=draw(st.none() | st.integers(1, 2000)),
        position_mm=draw(st.none() | numbers(-2000, 2000)),
        score=draw(numbers(0, 4)) if in_scope else None,
        interval=draw(intervals) if in_scope else None,
        in_scope=in_scope,
        reason=None if in_scope else draw(reasons),
        outline=draw(st.none() | st.tuples(side, side, side, side)),
    )


@st.composite
def stack_summaries(draw: st.DrawFn, refs: tuple[InstanceRef, ...]) -> StackSummary:
    slices = tuple(draw(st.lists(slice_scores(refs), min_size=1, max_size=4)))
    scored = [one for one in slices if one.score is not None]
    return StackSummary(
        acquisition=draw(st.none() | words),
        orientation=draw(words),
        kernel=draw(st.none() | words),
        rows=draw(st.integers(1, 65535)),
        columns=draw(st.integers(1, 65535)),
        score=draw(numbers(0, 4)) if scored else None,
        interval=draw(intervals) if scored else None,
        p10=draw(numbers(0, 4)) if scored else None,
        minimum=min(scored, key=lambda one: one.score or 0.0) if scored else None,
        below_threshold=draw(numbers(0, 1)) if scored else None,
        in_scope=len(scored),
        out_of_scope=len(slices) - len(scored),
        gaps=draw(st.integers(0, 9)),
        repeated=draw(st.integers(0, 9)),
        spacing_mm=draw(st.none() | numbers(0, 50)),
        physics=draw(st.dictionaries(words, st.none() | numbers(-2000, 4000), max_size=4)),
        slices=slices,
    )


@st.composite
def assessments(draw: st.DrawFn, refs: tuple[InstanceRef, ...]) -> Assessment:
    """Draw any assessment of a revision with these instances."""
    outcome = draw(st.sampled_from(Outcome))
    assessed_now = outcome is Outcome.ASSESSED
    outcomes = st.builds(
        InstanceOutcome,
        digest=st.just(""),
        state=st.sampled_from([InstanceState.SCORED, InstanceState.NOT_ASSESSED]),
        reason=st.none() | reasons,
        detail=storable_words,
    )
    told = draw(st.booleans()) or assessed_now
    stacks = tuple(draw(st.lists(stack_summaries(refs), max_size=3)))
    population = draw(st.sampled_from(Population))
    owner = draw(storable_words)
    return Assessment(
        outcome=outcome,
        reason=None if assessed_now else draw(reasons),
        detail=draw(storable_words),
        verdict=draw(st.sampled_from(Verdict)) if assessed_now else None,
        confidence=draw(st.sampled_from(Confidence)) if assessed_now else None,
        confidence_reasons=tuple(draw(st.lists(reasons, max_size=3))),
        flagged=draw(st.booleans()),
        score=draw(numbers(0, 4)) if assessed_now else None,
        interval=draw(intervals) if assessed_now else None,
        deciding_stack=0 if assessed_now and stacks else None,
        stacks=stacks,
        instances=tuple(
            InstanceOutcome(ref.digest, found.state, found.reason, found.detail)
            for ref, found in zip(refs, [draw(outcomes) for _ in refs], strict=True)
            if told
        ),
        criteria=CriteriaInForce(
            population=population,
            diagnostic_from=2.5,
            limited_from=1.5,
            flag_at=Verdict.LIMITED,
            min_slices=5,
            owner=owner,
            digest=hashlib.sha256(owner.encode()).hexdigest(),
        ),
        bundle=draw(st.none() | st.just(BUNDLE)),
    )
