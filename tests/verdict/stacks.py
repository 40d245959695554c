"""Stacks and summaries made in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfkt_node.records import (
    CT_IMAGE,
    InstanceRef,
    Reason,
    SliceGeometry,
    SliceScore,
    Stack,
    StackSummary,
)
from tfkt_node.verdict.statistics import summarize

HALF_WIDTH = 0.6


def around(score: float) -> tuple[float, float]:
    return round(max(score - HALF_WIDTH, 0), 4), round(min(score + HALF_WIDTH, 4), 4)


def slice_score(number: int, score: float | None, reason: Reason | None = None) -> SliceScore:
    interval = None if score is None else around(score)
    return SliceScore(
        digest=f"digest {number}",
        sop_uid=f"1.{number}",
        frame=None,
        position_mm=5.0 * number,
        score=score,
        interval=interval,
        in_scope=score is not None,
        reason=reason if score is None else None,
    )


def stack(count: int, *, gaps: int = 0, repeated: int = 0) -> Stack:
    slices = tuple(
        SliceGeometry(
            instance=InstanceRef(Path("a"), f"digest {number}", CT_IMAGE, f"1.{number}"),
            frame=None,
            rows=512,
            columns=512,
            origin_mm=None,
            orientation=None,
            position_mm=5.0 * number,
            pixel_spacing_mm=None,
            slice_thickness_mm=None,
            acquisition="1",
            kernel="B30f",
            image_type=(),
            instance_number=number,
        )
        for number in range(count)
    )
    return Stack("1", "AXIAL", "B30f", slices, 5.0, gaps, repeated)


def summary(scores: Sequence[float | None], **of_stack: Any) -> StackSummary:
    slices = [slice_score(number, score, Reason.NO_BODY) for number, score in enumerate(scores)]
    return summarize(stack(len(slices), **of_stack), slices, [], 2.5, around)
