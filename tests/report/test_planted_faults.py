"""A fault planted in each class of rule is found: the validators that say nothing do look."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.report import samples
from tests.report.validators import Tool, complaints, differences, parsed, pixelmed_errors, run
from tfkt_node.report import key_objects, structured_report, summary_picture

pytestmark = pytest.mark.peers


def report() -> Dataset:
    record = samples.record_of(samples.flagged_assessment())
    return dcmread(BytesIO(structured_report.build(record, 2).content))


def selection() -> Dataset:
    return dcmread(
        BytesIO(key_objects.build(samples.record_of(samples.flagged_assessment())).content)
    )


def picture() -> Dataset:
    record = samples.record_of(samples.flagged_assessment())
    return dcmread(BytesIO(summary_picture.build(record, None).content))


def saved(ds: Dataset, folder: Path, name: str = "object") -> Path:
    path = folder / f"{name}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def without(keyword: str) -> Callable[[Dataset], None]:
    return lambda ds: delattr(ds, keyword)


def putting(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda ds: setattr(ds, keyword, value)


@pytest.mark.parametrize(
    ("make", "spoil"),
    [
        pytest.param(report, without("CompletionFlag"), id="mandatory attribute missing"),
        pytest.param(report, putting("CompletionFlag", "DONE"), id="value not enumerated"),
        pytest.param(report, putting("ContentDate", "2026-03-05"), id="value against its VR"),
        pytest.param(report, without("PatientID"), id="attribute of type 2 missing"),
        pytest.param(selection, without("Modality"), id="selection without modality"),
        pytest.param(
            selection,
            without("CurrentRequestedProcedureEvidenceSequence"),
            id="selection without evidence",
        ),
        pytest.param(picture, without("PhotometricInterpretation"), id="picture without a colour"),
    ],
)
def test_dciodvfy_finds_a_broken_object(
    make: Callable[[], Dataset],
    spoil: Callable[[Dataset], None],
    tmp_path: Path,
    require_tool: Tool,
) -> None:
    """Rules of the object: presence, values, representation."""
    ds = make()

    with warnings.catch_warnings(action="ignore"):  # pydicom sees some of it coming
        spoil(ds)
        path = saved(ds, tmp_path)

    assert any(line.startswith("Error") for line in complaints(path, require_tool))


@pytest.mark.parametrize("keyword", ["PatientName", "PatientAge", "StudyDescription"])
def test_dcentvfy_finds_two_patients(keyword: str, tmp_path: Path, require_tool: Tool) -> None:
    """Rules between objects: one patient, one study."""
    good, bad = report(), selection()

    setattr(bad, keyword, "099Y" if keyword == "PatientAge" else "Other")

    paths = [saved(good, tmp_path, "good"), saved(bad, tmp_path, "bad")]
    assert any(keyword in line for line in differences(paths, require_tool))


def test_dsrdump_finds_a_broken_tree(tmp_path: Path, require_tool: Tool) -> None:
    """Rules of the tree: a value for each item."""
    ds = report()
    del ds.ContentSequence[-3].TextValue

    dumped = run(require_tool("dsrdump"), "+Pl", "+Pu", saved(ds, tmp_path))

    assert "E: " in dumped or "error" in dumped.lower()


@pytest.mark.parametrize("make", [report, selection])
@pytest.mark.parametrize("keyword", ["ValueType", "RelationshipType", "ConceptNameCodeSequence"])
def test_highdicom_finds_a_broken_tree(
    make: Callable[[], Dataset], keyword: str, tmp_path: Path
) -> None:
    """Rules of a content item: what it is, how it belongs there, what it is called."""
    ds = make()
    del ds.ContentSequence[1][keyword]

    with pytest.raises((AttributeError, KeyError, ValueError)):
        parsed(saved(ds, tmp_path))


@pytest.mark.parametrize("make", [report, selection])
def test_pixelmed_finds_a_tree_against_its_template(
    make: Callable[[], Dataset], tmp_path: Path, require_tool: Tool
) -> None:
    """Rules of the template: the relationship of each item."""
    ds = make()
    observer = next(
        item
        for item in ds.ContentSequence
        if "ConceptNameCodeSequence" in item
        and item.ConceptNameCodeSequence[0].CodeMeaning == "Observer Type"
    )
    observer.RelationshipType = "CONTAINS"

    assert pixelmed_errors(saved(ds, tmp_path), require_tool)
