"""Which objects a finished revision owes (design 5: "Reports owed"), and why none where none."""

from __future__ import annotations

from collections.abc import Collection

from tfkt_node.records import Assessment, ObjectKind, Outcome, Reason


def objects_owed(
    assessment: Assessment, silent_reasons: Collection[Reason]
) -> tuple[tuple[ObjectKind, ...], str]:
    """Return the kinds owed, and a sentence why none is owed ('' where some are)."""
    if assessment.outcome is Outcome.NOT_ASSESSED and assessment.reason in silent_reasons:
        return (), f"report.silent_reasons lists {assessment.reason}"
    if assessment.flagged:
        return (ObjectKind.SR, ObjectKind.KOS), ""
    return (ObjectKind.SR,), ""
