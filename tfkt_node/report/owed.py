"""Which objects a finished revision owes to whom (design 5: "Reports owed"), and why none."""

from __future__ import annotations

from collections.abc import Sequence

from tfkt_node.records import Assessment, ObjectKind, Outcome
from tfkt_node.settings import Peer, Report


def objects_owed(
    assessment: Assessment,
    report: Report,
    destinations: Sequence[Peer],
    *,
    answers_earlier: bool = False,
) -> tuple[dict[ObjectKind, list[str]], str]:
    """Return each kind owed with the names of the destinations that get it.

    Beside it a sentence why none is owed, '' where some are. Without destinations an SR is owed
    all the same: it stays in the spool. answers_earlier: an earlier revision of the series owed a
    report; then this one does whatever its reason, or what was said before would stand.
    """
    is_silent = (
        assessment.outcome is Outcome.NOT_ASSESSED and assessment.reason in report.silent_reasons
    )
    if is_silent and not answers_earlier:
        return {}, f"report.silent_reasons lists {assessment.reason}"
    everyone = [peer.name for peer in destinations]
    enhanced = [peer.name for peer in destinations if peer.sr_class == "enhanced"]
    comprehensive = [name for name in everyone if name not in enhanced]
    owed: dict[ObjectKind, list[str]] = {}
    if comprehensive or not enhanced:
        owed[ObjectKind.SR] = comprehensive
    if enhanced:
        owed[ObjectKind.ENHANCED_SR] = enhanced
    if assessment.flagged:
        owed[ObjectKind.KOS] = everyone
    if report.summary_picture and assessment.outcome is Outcome.ASSESSED:
        owed[ObjectKind.PICTURE] = everyone
    return owed, ""
