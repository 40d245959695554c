"""What a report points at: the deciding stack, its worst slices, where to draw the outline.

Shared by the Structured Report and the Key Object Selection, so that both name the same slices.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfkt_node.records import (
    RETRY_DELIVERIES,
    Assessment,
    EvidenceInstance,
    Outcome,
    Permanent,
    ReportRecord,
    SliceScore,
    StackSummary,
    Verdict,
)

DESCRIPTIONS = {
    Verdict.DIAGNOSTIC: "DIAGNOSTIC",
    Verdict.LIMITED: "LIMITED",
    Verdict.NON_DIAGNOSTIC: "NON-DIAGNOSTIC",
    Outcome.NOT_ASSESSED: "NOT ASSESSED",
    Outcome.FAILED: "FAILED",
}
"""What series descriptions say, for people and for the routing rules of a PACS."""

ACROSS, DOWN = (0.2, 0.65), (0.2, 0.8)
"""Shares of the image that an outline may cover: viewers write its label to the right of it, and
cut off what runs past the image."""


def contradiction(what: str) -> Permanent:
    """Return the error for a record that no honest report can be made of."""
    return Permanent(
        f"the verdict's record contradicts itself: {what}",
        cure=f"report it as a fault of the node; once mended, run {RETRY_DELIVERIES}",
    )


def verdict_of(a: Assessment) -> Verdict:
    """Return the verdict of an ASSESSED revision. Raises Permanent where there is none."""
    if a.verdict is None:
        raise contradiction("ASSESSED without a verdict")
    return a.verdict


def has_score(stack: StackSummary) -> bool:
    """Tell whether a stack has a score, and a slice that is its lowest."""
    lowest_one = stack.minimum
    return stack.score is not None and lowest_one is not None and lowest_one.score is not None


def lowest(stack: StackSummary) -> SliceScore:
    """Return the lowest-scoring slice of a stack. Raises Permanent where there is none."""
    if stack.minimum is None:
        raise contradiction("a score without a lowest slice")
    return stack.minimum


def score_of(found: SliceScore | StackSummary) -> float:
    """Return the score of what has one. Raises Permanent where there is none: none is made up."""
    if found.score is None:
        raise contradiction("no score where there has to be one")
    return found.score


def deciding_stack(a: Assessment) -> StackSummary:
    """Return the stack that gave the verdict. Raises Permanent where there is none."""
    if a.deciding_stack is None or not 0 <= a.deciding_stack < len(a.stacks):
        raise contradiction("ASSESSED without a deciding stack")
    stack = a.stacks[a.deciding_stack]
    if not has_score(stack):
        raise contradiction("the deciding stack has no score")
    return stack


def worst_first(stack: StackSummary) -> list[SliceScore]:
    """Return the slices with a score, worst first, in their order where scores are equal."""
    scored = [item for item in stack.slices if item.score is not None]
    return sorted(scored, key=score_of)


def reference(
    item: SliceScore, evidence: Mapping[str, EvidenceInstance]
) -> tuple[str, str, int | None]:
    """Return SOP class, SOP Instance UID and frame of a slice.

    Raises Permanent where the slice is not among the evidence.
    """
    instance = evidence.get(item.sop_uid)
    if instance is None:
        raise contradiction("a scored slice is not among its instances")
    return instance.sop_class_uid, instance.sop_uid, item.frame


def scored_evidence(record: ReportRecord) -> dict[str, EvidenceInstance]:
    """Return the instances that hold a slice with a score, by SOP Instance UID."""
    scored = {
        item.sop_uid
        for stack in record.assessment.stacks
        for item in (*stack.slices, *([stack.minimum] if stack.minimum else []))
        if item.score is not None
    }
    return {item.sop_uid: item for item in record.evidence if item.sop_uid in scored}


def outline(
    box: tuple[int, int, int, int] | None, rows: int, columns: int
) -> tuple[float, float, float, float]:
    """Return the box (left, top, right, bottom) in pixels, held inside the centre of the image.

    box: the body; None, or one that has nothing in the centre, gives the centre itself.
    """
    low_x, high_x = (share * columns for share in ACROSS)
    low_y, high_y = (share * rows for share in DOWN)
    if box is not None:
        left, top = max(float(box[0]), low_x), max(float(box[1]), low_y)
        right, bottom = min(float(box[2]), high_x), min(float(box[3]), high_y)
        if right - left >= 1 and bottom - top >= 1:
            return left, top, right, bottom
    return low_x, low_y, high_x, high_y
