"""The Key Object Selection of a flagged verdict (PS3.16 TID 2010): its worst slices.

The title is "Quality Issue" (113010). Never 113001 or another rejection note: archives hide, and
some purge, the images that those name, and this node flags without ever rejecting.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfkt_node.records import (
    Assessment,
    EvidenceInstance,
    MadeObject,
    Permanent,
    ReportRecord,
    SliceScore,
)
from tfkt_node.report import codes
from tfkt_node.report.content import Item, code, container, device_observer, image, language, text
from tfkt_node.report.document import KOS_FORM, make
from tfkt_node.report.findings import (
    DESCRIPTIONS,
    deciding_stack,
    lowest,
    reference,
    score_of,
    verdict_of,
    worst_first,
)
from tfkt_node.report.summary import plain_number

MOST = 30
"""Slices named at most."""


def build(record: ReportRecord) -> MadeObject:
    """Make the selection: slices of the deciding stack below the flag's threshold, worst first.

    Raises Permanent for a verdict that is not flagged, and where the record contradicts itself.
    """
    a = record.assessment
    if not a.flagged or a.verdict is None:
        raise Permanent(
            "a Key Object Selection is owed for flagged verdicts only, and this one is not flagged",
            cure="report it as a fault of the node; the Structured Report stands by itself",
        )
    evidence = {item.sop_uid: item for item in record.evidence}
    chosen = _chosen(a)
    named = dict.fromkeys(item.sop_uid for item in chosen)
    tree = container(
        codes.QUALITY_ISSUE,
        language(),
        code(codes.TITLE_MODIFIER, codes.IMAGE_ARTIFACTS, "HAS CONCEPT MOD"),
        *device_observer(record),
        text(codes.KEY_OBJECT_DESCRIPTION, _description(record.assessment, chosen)),
        *(_selected(item, evidence) for item in chosen),
        template="2010",
        root=True,
    )
    for item in tree.ContentSequence:
        if item.ValueType == "IMAGE":  # row 8 of TID 2010 forbids the name that highdicom wants
            del item.ConceptNameCodeSequence
    description = f"CT quality issue: {DESCRIPTIONS[a.verdict]}"
    instances = tuple(evidence[sop_uid] for sop_uid in named)
    return make(KOS_FORM, record, description, tree, instances)


def _chosen(a: Assessment) -> list[SliceScore]:
    below = _below(a)
    # Some slice lies below whenever the median does; the lowest one stands in if rounding hid it.
    return below[:MOST] or [lowest(deciding_stack(a))]


def _below(a: Assessment) -> list[SliceScore]:
    limit = a.criteria.flag_below
    return [
        item for item in worst_first(deciding_stack(a)) if limit is None or score_of(item) < limit
    ]


def _selected(item: SliceScore, evidence: dict[str, EvidenceInstance]) -> Item:
    return image(*reference(item, evidence), "CONTAINS")


def _description(a: Assessment, chosen: Sequence[SliceScore]) -> str:
    """Say verdict and score, what was chosen, and that nothing was rejected."""
    score = plain_number(score_of(deciding_stack(a)))
    limit = a.criteria.flag_below
    which = "slices" if limit is None else f"slices with a score below {plain_number(limit)}"
    return (
        f"Image quality {DESCRIPTIONS[verdict_of(a)]}, score {score} of 4. Selected, worst first: "
        f"{len(chosen)} of {max(len(_below(a)), len(chosen))} {which}. Nothing is rejected."
    )
