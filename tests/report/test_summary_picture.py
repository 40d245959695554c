"""The picture says what the report says, to eyes of every kind, and names nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from tests.report import samples
from tests.report.validators import frames_of_one
from tfkt_node.records import Confidence, Outcome, Permanent, Reason
from tfkt_node.report import structured_report, summary_picture
from tfkt_node.report.summary import how_sure

SLICE = np.linspace(-1000, 1000, 64 * 64, dtype=np.float32).reshape(64, 64)


def words(record: object) -> str:
    figure = summary_picture.draw(record, SLICE)
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_same_record_gives_the_same_picture() -> None:
    """P5: a rebuild makes the identical object, whatever style the process draws in."""
    import matplotlib as mpl

    record = samples.record_of(samples.flagged_assessment())

    first = summary_picture.build(record, SLICE)
    with mpl.rc_context({"font.size": 5, "axes.grid": True, "lines.linewidth": 9}):
        second = summary_picture.build(record, SLICE)

    assert first == second


def test_picture_is_a_secondary_capture_of_the_study() -> None:
    """1,024 x 1,024 RGB in a series of its own, that a hanging protocol can leave out."""
    record = samples.record_of(samples.flagged_assessment())
    ds = samples.read(summary_picture.build(record, SLICE).content)
    report = samples.read(structured_report.build(record, 3).content)

    assert ("1.2.840.10008.5.1.4.1.1.7", "OT", 9903, "CT image quality picture: LIMITED") == (
        ds.SOPClassUID, ds.Modality, ds.SeriesNumber, ds.SeriesDescription,
    )  # fmt: skip
    assert (1024, 1024, 3) == ds.pixel_array.shape
    assert ("NO", "WSD") == (ds.BurnedInAnnotation, ds.ConversionType)
    assert f"{samples.SERIES}.1" == ds.SourceImageSequence[0].ReferencedSOPInstanceUID
    for keyword in ("StudyInstanceUID", "PatientName", "PatientID", "ContentTime"):
        assert report[keyword] == ds[keyword]


def test_picture_says_verdict_score_doubt_and_worst_slice() -> None:
    """What the report says first, in words."""
    said = words(samples.record_of(samples.flagged_assessment()))

    for part in (
        "LIMITED, flagged", "low confidence", "The age is not", "image 1 at 5.0 mm: score 1.0425",
        "diagnostic\nfrom 2.5", "Slices in scope: 35, out of scope: 5",
    ):  # fmt: skip
        assert part in said


def test_every_reason_to_doubt_is_written_clear_of_the_curve() -> None:
    """P6: all eight that a verdict can have, and the interval behind them, whole and legible."""
    doubts = (
        Reason.TOO_FEW_SLICES, Reason.COVERAGE, Reason.AGE_UNKNOWN, Reason.INTERVAL,
        Reason.PARTLY_READ, Reason.NO_GEOMETRY, Reason.KERNEL, Reason.PHYSICS,
    )  # fmt: skip
    assessment = samples.flagged_assessment(confidence_reasons=doubts)

    figure = summary_picture.draw(samples.record_of(assessment), SLICE)

    said = next(one for one in figure.texts if "low confidence" in one.get_text())
    assert how_sure(assessment) == said.get_text().replace("\n", " ")
    curve, _ = figure.axes
    around = curve.get_tightbbox().frozen()  # with its legend
    assert said.get_window_extent().y0 > around.y1
    assert said.get_window_extent().x1 < summary_picture.SIDE_PIXELS
    assert curve.get_tightbbox().y0 > figure.axes[1].get_tightbbox().y1


def test_no_identifier_is_burned_in() -> None:
    """P10: neither patient nor study, nor what a header may say of them, is drawn."""
    flagged = samples.flagged_assessment()
    stack = replace(flagged.stacks[0], kernel="PHANTOM ANNA", acquisition="A-17")
    record = samples.record_of(
        replace(flagged, stacks=(stack,)), samples.patient(SeriesDescription="Anna P-17 A-17")
    )
    said = words(record)

    for secret in ("Phantom", "PHANTOM", "Anna", "P-17", "A-17", "1960", "CHEST", samples.STUDY):
        assert secret not in said


def test_difference_of_colour_is_one_of_shape_too() -> None:
    """For the colour-blind, and on a grey screen: slices above and below differ in their marker."""
    record = samples.record_of(samples.flagged_assessment())
    criteria = replace(record.assessment.criteria, diagnostic_from=1.5)
    record = replace(record, assessment=replace(record.assessment, criteria=criteria))

    (axes, *_) = summary_picture.draw(record, SLICE).axes
    markers = {line.get_label(): line.get_marker() for line in axes.lines}

    assert 4 == len({markers[name] for name in ("diagnostic", "below diagnostic")} | {"x", "O"})
    assert {"out of scope", "worst slice"} <= set(markers)


def test_slice_that_is_gone_is_said() -> None:
    """A picture without its slice is still a picture."""
    record = samples.record_of(
        samples.flagged_assessment(confidence=Confidence.CONFIDENT, confidence_reasons=())
    )

    figure = summary_picture.draw(record, None)

    assert "cannot be read" in "\n".join(text.get_text() for text in figure.findobj(Text))


def test_source_is_the_frame_that_is_shown() -> None:
    """A reference to a whole Enhanced CT would say that all its frames are in the picture."""
    one = samples.read(summary_picture.build(frames_of_one(), SLICE).content)
    plain = samples.read(
        summary_picture.build(samples.record_of(samples.flagged_assessment()), SLICE).content
    )

    assert 1 == one.SourceImageSequence[0].ReferencedFrameNumber
    assert "ReferencedFrameNumber" not in plain.SourceImageSequence[0]


def test_worst_slice_that_is_no_evidence_is_an_error() -> None:
    """A picture of nothing that can be named is as wrong as a report of it."""
    record = samples.record_of(samples.flagged_assessment(), evidence=())

    with pytest.raises(Permanent, match="not among its instances"):
        summary_picture.build(record, SLICE)


def test_only_an_assessed_series_has_one() -> None:
    """P6: without a score there is nothing to draw."""
    record = samples.record_of(samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD))

    with pytest.raises(Permanent, match="without"):
        summary_picture.build(record, SLICE)
