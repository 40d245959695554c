"""Which objects an outcome owes, and to whom."""

from __future__ import annotations

import pytest

from tests.report import samples
from tfkt_node.records import Assessment, ObjectKind, Outcome, Reason
from tfkt_node.report.owed import objects_owed
from tfkt_node.settings import Peer, Report

PACS = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", deliver=True)
OLD = Peer(name="old", ae_title="OLD", host="127.0.0.1", deliver=True, sr_class="enhanced")

FLAGGED = samples.flagged_assessment()
GOOD = samples.flagged_assessment(flagged=False)
HEAD = samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD)
LOCALIZER = samples.unassessed(Outcome.NOT_ASSESSED, Reason.LOCALIZER)
FAILED = samples.unassessed(Outcome.FAILED, Reason.LOCALIZER)


@pytest.mark.parametrize(
    ("assessment", "owed"),
    [
        (FLAGGED, {ObjectKind.SR: ["pacs"], ObjectKind.KOS: ["pacs"]}),
        (GOOD, {ObjectKind.SR: ["pacs"]}),
        (HEAD, {ObjectKind.SR: ["pacs"]}),
        (FAILED, {ObjectKind.SR: ["pacs"]}),
    ],
    ids=["flagged", "not flagged", "not assessed", "failed"],
)
def test_each_outcome_owes_its_report(
    assessment: Assessment, owed: dict[ObjectKind, list[str]]
) -> None:
    """P5: every outcome is reported; a flag owes a Key Object Selection beside the report."""
    assert (owed, "") == objects_owed(assessment, Report(), [PACS])


def test_silent_reason_owes_nothing_and_says_why() -> None:
    """Localizers would fill the PACS with reports; the audit says why there is none."""
    owed, because = objects_owed(LOCALIZER, Report(), [PACS])

    assert {} == owed
    assert "report.silent_reasons lists LOCALIZER" == because


def test_silent_reason_is_reported_where_an_earlier_revision_was() -> None:
    """P5: what was said of a series before does not stand when it no longer holds."""
    owed = objects_owed(LOCALIZER, Report(), [PACS], answers_earlier=True)

    assert ({ObjectKind.SR: ["pacs"]}, "") == owed


def test_destination_without_comprehensive_sr_gets_an_enhanced_one() -> None:
    """P5: one report for each destination, of the class that it takes."""
    both, _ = objects_owed(FLAGGED, Report(), [PACS, OLD])
    only_old, _ = objects_owed(GOOD, Report(), [OLD])

    assert {
        ObjectKind.SR: ["pacs"],
        ObjectKind.ENHANCED_SR: ["old"],
        ObjectKind.KOS: ["pacs", "old"],
    } == both
    assert {ObjectKind.ENHANCED_SR: ["old"]} == only_old


def test_report_is_owed_without_a_destination() -> None:
    """It stays in the spool, and is made all the same."""
    owed, _ = objects_owed(GOOD, Report(), [])

    assert {ObjectKind.SR: []} == owed


def test_picture_is_owed_only_where_it_is_wished_for() -> None:
    """Off by default, and never for a series without a score."""
    wished = Report(summary_picture=True)

    assert ObjectKind.PICTURE not in objects_owed(FLAGGED, Report(), [PACS])[0]
    assert ["pacs"] == objects_owed(FLAGGED, wished, [PACS])[0][ObjectKind.PICTURE]
    assert ObjectKind.PICTURE not in objects_owed(HEAD, wished, [PACS])[0]
