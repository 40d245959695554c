"""The document of `score --json`: its schema holds, and its numbers are finite or null."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tfkt_node.cli.document import (
    AssessedSeries,
    document,
    finite,
    schema,
    settle_outcomes,
)
from tfkt_node.cli.intake import FileOutcome, GivenFile, GivenSeries, Refusal
from tfkt_node.iqa.bundle import Bundle
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.records import (
    CT_IMAGE,
    Assessment,
    BundleInForce,
    Confidence,
    CriteriaInForce,
    InstanceHeader,
    InstanceOutcome,
    InstanceRef,
    InstanceState,
    Outcome,
    Population,
    Reason,
    SliceScore,
    StackSummary,
    Verdict,
)
from tfkt_node.settings import CriteriaByPopulation

VALIDATOR = Draft202012Validator(schema())
NAN = float("nan")
CRITERIA = CriteriaInForce(Population.ADULT, 2.5, 1.5, Verdict.LIMITED, 5, "default", "0" * 64)


def given(number: int, outcome: FileOutcome | None = None) -> GivenFile:
    ref = InstanceRef(Path(f"scratch/{number}"), f"{number:064}", CT_IMAGE, f"2.25.{number}")
    header = InstanceHeader("P", "2.25.1", "2.25.2", "CT", "", "", "", number, None, False, b"")
    return GivenFile(Path(f"in/{number}"), outcome, instance=ref, header=header)


def slice_score(number: int, score: float | None) -> SliceScore:
    return SliceScore(
        digest=f"{number:064}",
        sop_uid=f"2.25.{number}",
        frame=None,
        position_mm=NAN if score is None else 5.0 * number,
        score=score,
        interval=None if score is None else (score - 0.5, score + 0.5),
        in_scope=score is not None,
        reason=Reason.HEAD if score is None else None,
    )


def assessed(*scores: float | None) -> AssessedSeries:
    slices = tuple(slice_score(number, score) for number, score in enumerate(scores))
    stack = StackSummary(
        acquisition="1", orientation="AXIAL", kernel=None, rows=512, columns=512, score=2.0,
        interval=(1.5, 2.5), p10=1.0, minimum=slices[0], below_threshold=0.5, in_scope=1,
        out_of_scope=1, gaps=0, repeated=0, spacing_mm=5.0, slices=slices,
        physics={"noise_hu": NAN, "water_hu": float("-inf"), "diameter_mm": 300.0},
    )  # fmt: skip
    assessment = Assessment(
        outcome=Outcome.ASSESSED, reason=None, detail="", verdict=Verdict.LIMITED,
        confidence=Confidence.LOW_CONFIDENCE, flagged=True, score=2.0, interval=(1.5, 2.5),
        confidence_reasons=(Reason.TOO_FEW_SLICES, Reason.AGE_UNKNOWN), deciding_stack=0,
        stacks=(stack,),
        instances=tuple(
            InstanceOutcome(
                one.digest,
                InstanceState.SCORED if one.in_scope else InstanceState.NOT_ASSESSED,
                one.reason,
            )
            for one in slices
        ),
        criteria=CRITERIA,
        bundle=BundleInForce("b", "1", "a" * 64, "openvino", "f32"),
    )  # fmt: skip
    files = tuple(given(number) for number in range(len(scores)))
    return AssessedSeries(GivenSeries("2.25.1", "2.25.2", files), assessment)


BUNDLE = Bundle(Path(), "b", "1", "a" * 64, {}, Calibration(1.0, 0.0, 0.5, 0.5, 0.9))


def made(files: list[GivenFile], *series: AssessedSeries) -> dict[str, Any]:
    settled = settle_outcomes(files, series)
    return document(settled, series, BUNDLE, CriteriaByPopulation())


def whole() -> dict[str, Any]:
    refused = GivenFile(Path("in/text"), FileOutcome.REFUSED, Refusal.NOT_DICOM)
    copy = replace(given(0, FileOutcome.DUPLICATE), duplicate_of=Path("in/0"))
    return made([given(0), given(1), refused, copy], assessed(2.0, None))


def test_schema_is_a_schema() -> None:
    """The packaged schema is valid itself."""
    Draft202012Validator.check_schema(schema())


def test_document_fits_its_schema() -> None:
    """A document with every kind of value, written and read again, fits the schema."""
    VALIDATOR.validate(json.loads(json.dumps(whole(), allow_nan=False)))


def test_document_of_nothing_fits_its_schema() -> None:
    """Where nothing was scored, engine and precision are null and the lists are empty."""
    VALIDATOR.validate(made([]))


def test_numbers_are_finite_or_null() -> None:
    """NaN and infinity become null."""
    stack = whole()["series"][0]["stacks"][0]

    assert {"noise_hu": None, "water_hu": None, "diameter_mm": 300.0} == stack["physics"]
    assert None is stack["slices"][1]["position_mm"]
    assert [None, None, 1.5] == [finite(NAN), finite(None), finite(1.5)]


def test_files_have_their_outcomes() -> None:
    """Each file tells what it came to and why, in the order given."""
    told = [(one["path"], one["outcome"], one["reason"]) for one in whole()["files"]]

    assert [
        ("in/0", "scored", None),
        ("in/1", "not_assessed", "HEAD"),
        ("in/text", "refused", "NOT_DICOM"),
        ("in/0", "duplicate", None),
    ] == told


def test_series_says_why_it_is_not_sure() -> None:
    """Reasons of low confidence are listed by name."""
    series = whole()["series"][0]

    assert "TOO_FEW_SLICES, AGE_UNKNOWN" == series["reason"]
    assert ("LOW_CONFIDENCE", "LIMITED", True) == (
        series["confidence"], series["verdict"], series["flagged"],
    )  # fmt: skip


def test_series_says_by_whose_criteria_and_which_stack_it_was_judged() -> None:
    """The criteria at the head are those of adults and children: a series names its own."""
    child = replace(CRITERIA, population=Population.CHILD)
    one = assessed(2.0, None)
    judged = replace(one, assessment=replace(one.assessment, criteria=child))

    (series,) = made([given(0), given(1)], judged)["series"]

    assert ("CHILD", 0) == (series["population"], series["deciding_stack"])
    assert 2.0 == series["stacks"][series["deciding_stack"]]["score"]


@pytest.mark.parametrize("known", [3, None])
def test_stack_says_what_coverage_is_doubted_for(known: int | None) -> None:
    """Gaps, repeats, spacing and matrix stand beside the score; unknown is null, never 0."""
    one = assessed(2.0, None)
    stack = replace(one.assessment.stacks[0], gaps=known, repeated=known, spacing_mm=known)
    told = made(
        [given(0), given(1)], replace(one, assessment=replace(one.assessment, stacks=(stack,)))
    )

    found = told["series"][0]["stacks"][0]

    assert [known] * 3 == [found[name] for name in ("gaps", "repeated", "spacing_mm")]
    assert (512, 512) == (found["rows"], found["columns"])
    VALIDATOR.validate(json.loads(json.dumps(told)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told: told.pop("bundle"),
        lambda told: told.update(extra=1),
        lambda told: told["files"][2].update(reason=None),
        lambda told: told["files"][3].update(duplicate_of=None),
        lambda told: told["files"][0].update(outcome="lost"),
        lambda told: told["series"][0].update(verdict=None),
        lambda told: told["series"][0].update(outcome="FAILED"),
        lambda told: told["series"][0].update(score=4.5),
        lambda told: told["series"][0].update(deciding_stack=None),
        lambda told: told["series"][0]["stacks"][0].pop("gaps"),
        lambda told: told.update(schema=1),
        lambda told: told["series"][0]["stacks"][0]["slices"][0].pop("path"),
    ],
)
def test_schema_refuses_what_is_wrong(spoil: Any) -> None:
    """The schema is no rubber stamp."""
    told = json.loads(json.dumps(whole()))
    spoil(told)

    assert not VALIDATOR.is_valid(told)
