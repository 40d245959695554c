"""Take one revision through slices, iqa and verdict, slice by slice.

What `score` and the scorer run. Memory is bounded: one instance and one chunk of slices at a time.
Promise P6: what cannot be scored is said with its reason, and the next slice follows. No detail
holds an identifier.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from tfkt_node.iqa import physics, scope, uncertainty
from tfkt_node.iqa.bundle import Bundle
from tfkt_node.iqa.engine import Engine, fit_to_grid
from tfkt_node.records import (
    CT_CLASSES,
    UNREAD,
    Assessment,
    BundleInForce,
    CriteriaInForce,
    FloatArray,
    InstanceOutcome,
    InstanceRef,
    InstanceState,
    Outcome,
    Population,
    Reason,
    SetAside,
    SliceGeometry,
    SliceScore,
    Stack,
    StackSummary,
)
from tfkt_node.settings import Limits, Report, Settings
from tfkt_node.slices import attributes as dicom
from tfkt_node.slices import decoding, geometry, stacking
from tfkt_node.verdict import criteria as criteria_of
from tfkt_node.verdict import populations, statistics

CHUNK = 32
"""Slices that go to the engine at once: enough to keep its streams busy, 32 MB."""
_Age = tuple[str, str, str]
"""Patient's Age, Patient's Birth Date, Study Date."""

SILENT = frozenset(Report().silent_reasons)
"""Reasons that owe no report by default. Not those in force: a reason is a finding, which hangs on
no setting of what is reported."""


def failed(
    settings: Settings,
    instances: Sequence[InstanceRef],
    attributes: bytes,
    reason: Reason,
    detail: str,
) -> Assessment:
    """Return the outcome of a revision that could not be scored: FAILED, for this reason."""
    criteria, _ = _criteria(settings, attributes)
    outcomes = tuple(
        InstanceOutcome(ref.digest, InstanceState.NOT_ASSESSED, reason) for ref in instances
    )
    return replace(_without_score(Outcome.FAILED, reason, detail, criteria), instances=outcomes)


class Assessor:
    """Assesses revisions with one bundle and one engine."""

    def __init__(self, settings: Settings, bundle: Bundle, engine: Engine) -> None:
        self._settings = settings
        self._calibration = bundle.calibration
        self._distance = bundle.feature_distance()
        self._engine = engine
        self._bundle = BundleInForce(
            bundle.name, bundle.version, bundle.digest, engine.name, engine.precision
        )

    def assess(
        self,
        instances: Sequence[InstanceRef],
        attributes: bytes,
        *,
        poisoned: Collection[str] = (),
        looking_at: Callable[[str], None] = lambda _: None,
    ) -> Assessment:
        """Assess one revision: ASSESSED with a verdict, or NOT_ASSESSED with a reason.

        instances: the revision's frozen list. attributes: as in InstanceHeader; the age comes from
        there and from the headers of the instances, if they do not contradict. poisoned: digests of
        instances that are not to be opened, since they ended the process before. looking_at: told
        the digest of each instance before something is read of it, and '' after. Scores and verdict
        do not depend on the order of the list.
        """
        found = _Findings()
        for digest in poisoned:
            found.set_aside[digest] = SetAside(
                Reason.UNDECODABLE, "reading it ended the scoring process twice"
            )
        reader = _Reader(self._settings.limits, looking_at)
        stacks = stacking.stacks(_described(instances, found, reader))
        criteria, age_known = _criteria(self._settings, attributes, found.ages)
        summaries = tuple(self._sum_up(stack, criteria, found, reader) for stack in stacks)
        outcomes = tuple(found.outcome(ref) for ref in instances)
        # Of the whole series: a stack that could not be read may have been the worst.
        unread = [Reason.PARTLY_READ] if UNREAD.intersection(found.all_reasons()) else []
        decision = criteria_of.decide(
            summaries,
            criteria,
            age_known=age_known,
            errors=self._calibration.errors,
            doubts={
                index: unread + _doubts(*one)
                for index, one in enumerate(zip(stacks, summaries, strict=True))
            },
        )
        if decision is None:
            reason = most_telling(found.all_reasons())
            detail = next((one.detail for one in outcomes if one.reason is reason), "")
            return replace(
                _without_score(Outcome.NOT_ASSESSED, reason, detail, criteria),
                stacks=summaries,
                instances=outcomes,
                bundle=self._bundle,
            )
        deciding = summaries[decision.deciding_stack]
        return Assessment(
            outcome=Outcome.ASSESSED,
            reason=None,
            detail="",
            verdict=decision.verdict,
            confidence=decision.confidence,
            confidence_reasons=decision.confidence_reasons,
            flagged=decision.flagged,
            score=deciding.score,
            interval=deciding.interval,
            deciding_stack=decision.deciding_stack,
            stacks=summaries,
            instances=outcomes,
            criteria=criteria,
            bundle=self._bundle,
        )

    def _sum_up(
        self, stack: Stack, criteria: CriteriaInForce, found: _Findings, reader: _Reader
    ) -> StackSummary:
        scores: list[SliceScore] = []
        measured: list[physics.Measures] = []
        looked_at = _looked_at(stack.slices, found, reader)
        while chunk := list(islice(looked_at, CHUNK)):
            inside = [one for one in chunk if one.hu is not None]
            grids = [fit_to_grid(one.hu) for one in inside if one.hu is not None]
            scored = iter(self._read(np.stack(grids)) if grids else ())
            for one in chunk:
                score = self._scored(one, *(next(scored) if one.hu is not None else (None, None)))
                scores.append(score)
                if score.in_scope:
                    measured.append(one.measures)
        if scope.is_head_scan([one.reason for one in scores]):
            scores, measured = [_withheld(one, Reason.HEAD) for one in scores], []
        found.record(stack.slices, scores)
        return statistics.summarize(
            stack,
            scores,
            measured,
            criteria.diagnostic_from,
            partial(uncertainty.series_interval, self._calibration),
        )

    def _read(self, grids: FloatArray) -> Iterator[tuple[float | None, Reason | None]]:
        """Yield u of each slice, or why it has none after all."""
        readings = self._engine.read(grids)
        outside = self._distance.is_outside(readings.pooled)
        for u, is_unfamiliar in zip(readings.u.tolist(), outside, strict=True):
            if not math.isfinite(u):
                yield None, Reason.SCORER_ERROR
            elif is_unfamiliar:
                yield None, Reason.UNFAMILIAR
            else:
                yield u, None

    def _scored(self, one: _Look, u: float | None, why_none: Reason | None) -> SliceScore:
        score, interval = (None, None) if u is None else uncertainty.score(self._calibration, u)
        return SliceScore(
            digest=one.where.instance.digest,
            sop_uid=one.where.instance.sop_uid,
            frame=one.where.frame,
            position_mm=_shown_at(one.where),
            score=score,
            interval=interval,
            in_scope=score is not None,
            reason=one.reason or why_none,
            outline=one.outline,
        )


def _shown_at(where: SliceGeometry) -> float | None:
    """Return where a viewer shows a slice to lie, mm: z of Image Position (Patient) if it is axial.

    Along the axis nearest to the normal, that is. The distance along the normal itself, by which
    slices are ordered, is another number under a tilted gantry, and no viewer shows it.
    """
    if where.origin_mm is None or where.orientation is None:
        return None
    along = [abs(part) for part in geometry.normal(where.orientation)]
    return round(where.origin_mm[along.index(max(along))], 4)


def _withheld(one: SliceScore, reason: Reason) -> SliceScore:
    """Take the score away from a slice that has one."""
    if not one.in_scope:
        return one
    return replace(one, score=None, interval=None, in_scope=False, reason=reason)


def _doubts(stack: Stack, summary: StackSummary) -> list[Reason]:
    """Return what the slices of a stack give against trusting its score.

    NO_GEOMETRY: whether all are there, or how large what they show is, cannot be told.
    """
    if summary.score is None:
        return []
    holding = {
        Reason.NO_GEOMETRY: any(
            one.position_mm is None or one.pixel_spacing_mm is None for one in stack.slices
        ),
        Reason.KERNEL: scope.is_sharp_kernel(summary.kernel),
        Reason.PHYSICS: physics.contradict(summary.score, summary.physics),
    }
    return [reason for reason, holds in holding.items() if holds]


def most_telling(reasons: Iterable[Reason]) -> Reason:
    """Return the most frequent reason; of equals, the one that stands first in the enum.

    One of SILENT only where there is no other: localizers do not hide what could not be read.
    NO_PIXELS for a revision of which there is nothing to say at all.
    """
    counts = Counter(reasons)
    told = counts.keys() - SILENT or counts.keys()
    in_order = (reason for reason in Reason if reason in told)
    return max(in_order, key=lambda reason: counts[reason], default=Reason.NO_PIXELS)


# --------------------------------------------------------------------------- slice by slice


@dataclass(frozen=True, slots=True)
class _Look:
    """One slice, looked at: in scope with its pixels and measures, or out with a reason."""

    where: SliceGeometry
    hu: FloatArray | None
    reason: Reason | None
    outline: tuple[int, int, int, int] | None = None
    measures: physics.Measures = field(default_factory=dict)


@dataclass(slots=True)
class _Findings:
    """What has been found out about each instance, by digest."""

    set_aside: dict[str, SetAside] = field(default_factory=dict)
    scored: set[str] = field(default_factory=set)
    reasons: dict[str, list[Reason]] = field(default_factory=lambda: defaultdict(list))
    ages: set[_Age] = field(default_factory=set)

    def record(self, slices: Iterable[SliceGeometry], scores: Iterable[SliceScore]) -> None:
        for where, score in zip(slices, scores, strict=True):
            if score.reason is None:
                self.scored.add(where.instance.digest)
            else:
                self.reasons[where.instance.digest].append(score.reason)

    def all_reasons(self) -> list[Reason]:
        of_slices = [reason for reasons in self.reasons.values() for reason in reasons]
        unread = [one.reason for key, one in self.set_aside.items() if key not in self.reasons]
        return of_slices + unread

    def outcome(self, ref: InstanceRef) -> InstanceOutcome:
        if ref.digest in self.scored:
            return InstanceOutcome(ref.digest, InstanceState.SCORED, None)
        known = self.set_aside.get(ref.digest)
        reasons = self.reasons.get(ref.digest, [])
        if known is not None:
            reasons = [*reasons, known.reason]
        reason = most_telling(reasons)
        detail = known.detail if known is not None and known.reason is reason else ""
        return InstanceOutcome(ref.digest, InstanceState.NOT_ASSESSED, reason, detail)


class _Reader:
    """Opens instances one at a time, and says which: the caller may have to know who did it."""

    def __init__(self, limits: Limits, looking_at: Callable[[str], None]) -> None:
        self.limits = limits
        self._looking_at = looking_at
        self._described: dict[Path, tuple[int, ...]] = {}
        self._path: Path | None = None
        self._image: decoding.Image | SetAside | None = None

    @contextmanager
    def at(self, ref: InstanceRef) -> Iterator[None]:
        """Name the instance for as long as its content is being looked at."""
        self._looking_at(ref.digest)
        yield
        self._looking_at("")  # not after an exception: then the caller wants to know

    def header(self, ref: InstanceRef) -> Dataset:
        self._described[ref.path] = _identity(ref.path)
        return decoding.read_dataset(ref.path, limits=self.limits)

    def hu(self, where: SliceGeometry) -> FloatArray:
        """Decode a slice of the file whose header was read.

        The last object stays open, or the reason why it cannot be: its frames come one after the
        other.
        """
        path = where.instance.path
        if path != self._path:
            self._path, self._image = path, None  # before the next one is read: one at a time
            try:
                ds = decoding.read_dataset(path, pixels=True, limits=self.limits)
                self._image = decoding.Image(ds, self.limits)
            except SetAside as error:
                self._image = error
        if not isinstance(self._image, decoding.Image):
            raise self._image or SetAside(Reason.UNDECODABLE)
        hu = decoding.scored(self._image, where.frame)
        if _identity(path) != self._described[path]:
            raise SetAside(Reason.UNREADABLE, "the file was changed while it was being read")
        return hu


def _identity(path: Path) -> tuple[int, ...]:
    """Tell one file from another under the same name; () where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _described(
    instances: Iterable[InstanceRef], found: _Findings, reader: _Reader
) -> list[SliceGeometry]:
    """Read all headers; what cannot be read or placed is kept in the findings."""
    slices: list[SliceGeometry] = []
    for ref in instances:
        if ref.digest in found.set_aside:
            continue
        with reader.at(ref):
            try:
                if ref.sop_class_uid not in CT_CLASSES:
                    raise SetAside(Reason.NOT_CT)
                header = reader.header(ref)
                slices.extend(geometry.slices_of(ref, header, reader.limits))
                found.ages.add(_age(header))
            except SetAside as error:
                found.set_aside[ref.digest] = error
    return slices


def _looked_at(
    slices: Iterable[SliceGeometry], found: _Findings, reader: _Reader
) -> Iterator[_Look]:
    """Decode and judge slices one by one; only in-scope ones carry pixels."""
    for where in slices:
        reason = scope.header_reason(where)
        if reason is not None:
            yield _Look(where, None, reason)
            continue
        with reader.at(where.instance):
            look = _look(where, found, reader)
        yield look


def _look(where: SliceGeometry, found: _Findings, reader: _Reader) -> _Look:
    try:
        hu = reader.hu(where)
    except SetAside as error:
        found.set_aside.setdefault(where.instance.digest, error)
        return _Look(where, None, error.reason)
    body = scope.find_body(hu)
    reason = scope.pixel_reason(body, where.pixel_spacing_mm, where.body_part)
    if reason is not None:
        return _Look(where, None, reason, body.outline)
    return _Look(where, hu, None, body.outline, physics.measure(hu, body, where))


# --------------------------------------------------------------------------- the revision


def _criteria(
    settings: Settings, attributes: bytes, ages: Iterable[_Age] = ()
) -> tuple[CriteriaInForce, bool]:
    """Return the criteria for the patient's age, and whether the age is known.

    ages: what the instances state. One is enough; where they contradict, it is not known.
    """
    try:
        ds = dicom.from_bytes(attributes)
    except SetAside:
        ds = Dataset()  # the age is not known then, which the verdict says
    below = settings.criteria.child_below_years
    told = {populations.population(*age, below) for age in {_age(ds), *ages}} - {None}
    population = told.pop() if len(told) == 1 else None
    criteria = criteria_of.in_force(settings.criteria, population or Population.ADULT)
    return criteria, population is not None


def _age(ds: Dataset) -> _Age:
    """Return what a header tells of the age at the study."""
    stated = dicom.text(ds, "PatientAge")
    return stated, dicom.text(ds, "PatientBirthDate"), dicom.text(ds, "StudyDate")


def _without_score(
    outcome: Outcome, reason: Reason, detail: str, criteria: CriteriaInForce
) -> Assessment:
    return Assessment(
        outcome=outcome,
        reason=reason,
        detail=detail,
        verdict=None,
        confidence=None,
        confidence_reasons=(),
        flagged=False,
        score=None,
        interval=None,
        deciding_stack=None,
        stacks=(),
        instances=(),
        criteria=criteria,
        bundle=None,
    )
