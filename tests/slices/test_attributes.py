from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tfkt_node.records import Reason, SetAside
from tfkt_node.slices.attributes import (
    FOREIGN_ERRORS,
    decimal,
    decimals,
    foreign_errors_as,
    from_bytes,
    integer,
    text,
    texts,
)


def raw(keyword: str, vr: str, value: bytes) -> Dataset:
    """A data set with one element as it comes from a file, not yet converted."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    ds = Dataset()
    tag = Tag(tag_for_keyword(keyword) or 0)
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return ds


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"1.5 ", 1.5),
        (b"-1024", -1024.0),
        (b"NaN ", None),
        (b"1e400 ", None),
        (b"1,0 ", None),
        (b"abc ", None),
        (b"", None),
        (b"1\\2 ", None),
    ],
)
def test_decimal_is_a_single_finite_number_or_nothing(value: bytes, number: float | None) -> None:
    """No number is guessed from text that holds none, or more than one."""
    assert number == decimal(raw("RescaleSlope", "DS", value), "RescaleSlope")


def test_whole_numbers_stay_whole() -> None:
    """Rows of 64.5 are no rows."""
    assert 64 == integer(raw("Rows", "DS", b"64"), "Rows")
    assert integer(raw("Rows", "DS", b"64.5"), "Rows") is None


def test_values_are_counted() -> None:
    """Pixel Spacing of one value is not a spacing."""
    assert decimals(raw("PixelSpacing", "DS", b"0.7\\0.8"), "PixelSpacing", 2) == (0.7, 0.8)
    assert decimals(raw("PixelSpacing", "DS", b"0.7 "), "PixelSpacing", 2) is None
    assert decimals(Dataset(), "PixelSpacing", 2) is None


def test_text_loses_its_padding_and_many_values_are_no_text() -> None:
    """Trailing spaces and NULs are padding; two values are not one."""
    assert text(raw("Modality", "CS", b"CT"), "Modality") == "CT"
    assert text(raw("StudyDescription", "LO", b"CHEST \0"), "StudyDescription") == "CHEST"
    assert text(raw("Modality", "CS", b"CT\\MR"), "Modality") == ""
    assert texts(raw("ImageType", "CS", b"ORIGINAL\\PRIMARY"), "ImageType") == (
        "ORIGINAL",
        "PRIMARY",
    )


@pytest.mark.parametrize("error", FOREIGN_ERRORS)
def test_each_foreign_error_becomes_one_reason_without_its_text(error: type[Exception]) -> None:
    """What a library says may quote the data set: only the kind of error is kept (P10)."""
    with pytest.raises(SetAside) as caught, foreign_errors_as(Reason.UNREADABLE, "not sound"):
        raise error("MARKER^NAME")

    assert (Reason.UNREADABLE, f"not sound ({error.__name__})") == (
        caught.value.reason,
        str(caught.value),
    )


def test_attributes_of_a_header_come_back_as_they_were_encoded() -> None:
    """Explicit VR Little Endian without file meta is what the index keeps for the report."""
    ds, buffer = Dataset(), DicomBytesIO()
    ds.PatientAge = "012Y"
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds)

    assert text(from_bytes(buffer.getvalue()), "PatientAge") == "012Y"
    assert text(from_bytes(b""), "PatientAge") == ""


@pytest.mark.parametrize("content", [b"", b"not DICOM at all", b"\0" * 128 + b"DICM"])
def test_what_is_not_dicom_is_unreadable(tmp_path: Path, content: bytes) -> None:
    """An empty read is a broken file, not an image without attributes."""
    from tfkt_node.slices.attributes import read_dataset

    path = tmp_path / "file.dcm"
    path.write_bytes(content)

    with pytest.raises(SetAside) as caught:
        read_dataset(path)

    assert caught.value.reason is Reason.UNREADABLE
