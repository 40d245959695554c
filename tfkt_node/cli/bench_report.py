"""What `tfkt-node bench report` measures: time and size of each object of a flagged series."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tfkt_node import __version__
from tfkt_node.making import make
from tfkt_node.reception.instances import Spool
from tfkt_node.records import (
    CT_IMAGE,
    Assessment,
    BundleInForce,
    ClaimedObject,
    Confidence,
    CriteriaInForce,
    EvidenceInstance,
    ObjectKind,
    Outcome,
    Population,
    ReportRecord,
    SliceScore,
    StackSummary,
    Verdict,
)
from tfkt_node.settings import Settings

SERIES = "2.25.1"
DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of object. ms: median time to build it. size_kb: of its file."""

    kind: ObjectKind
    ms: float
    size_kb: float


def measure(slices: int, rounds: int) -> Iterator[Row]:
    """Build each kind of object of a series of so many slices, all with a score.

    The picture is built without its slice, which no spool has here.
    """
    record = _record(slices)
    with tempfile.TemporaryDirectory(prefix="tfkt-node-") as folder:
        spool = Spool(Path(folder))
        for kind in ObjectKind:
            claimed = ClaimedObject(0, kind, record)
            made = make(claimed, Settings(), spool)  # imports count for no round
            times_ms = []
            for _ in range(rounds):
                began = time.perf_counter()
                make(claimed, Settings(), spool)
                times_ms.append(1000 * (time.perf_counter() - began))
            yield Row(kind, median(times_ms), len(made.content) / 1000)


def _record(count: int) -> ReportRecord:
    slices = tuple(_slice(number, 1.0 + 1.5 * number / count) for number in range(count))
    middle = slices[count // 2].score
    stack = StackSummary(
        acquisition="1",
        orientation="AXIAL",
        kernel="STANDARD",
        rows=512,
        columns=512,
        score=middle,
        interval=(1.0, 2.5),
        p10=slices[count // 10].score,
        minimum=slices[0],
        below_threshold=1.0,
        in_scope=count,
        out_of_scope=0,
        gaps=0,
        repeated=0,
        spacing_mm=1.0,
        physics={"noise_hu": 20.0, "water_equivalent_diameter_mm": 280.0},
        slices=slices,
    )
    assessment = Assessment(
        outcome=Outcome.ASSESSED,
        reason=None,
        detail="",
        verdict=Verdict.LIMITED,
        confidence=Confidence.CONFIDENT,
        confidence_reasons=(),
        flagged=True,
        score=middle,
        interval=stack.interval,
        deciding_stack=0,
        stacks=(stack,),
        instances=(),
        criteria=CriteriaInForce(Population.ADULT, 2.5, 1.5, Verdict.LIMITED, 5, "default", DIGEST),
        bundle=BundleInForce("bench", "0", DIGEST, "openvino", "fp32"),
    )
    return ReportRecord(
        verdict_id="bench",
        decided_at=datetime.now(UTC),
        revision_number=1,
        patient_id="",
        study_uid="2.25.2",
        series_uid=SERIES,
        attributes=b"",
        assessment=assessment,
        evidence=tuple(
            EvidenceInstance(CT_IMAGE, one.sop_uid, number)
            for number, one in enumerate(slices, start=1)
        ),
        before=(),
        predecessor=None,
        node_uid="2.25.3",
        software_version=__version__,
    )


def _slice(number: int, score: float) -> SliceScore:
    return SliceScore(
        digest=f"{number:064x}",
        sop_uid=f"{SERIES}.{number}",
        frame=None,
        position_mm=float(number),
        score=round(score, 4),
        interval=None,
        in_scope=True,
        reason=None,
        outline=(60, 90, 450, 400),
    )
