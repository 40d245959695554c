from __future__ import annotations

import errno
import tracemalloc
import zlib
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from tests.slices.ct_images import ct
from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.attributes import (
    FOREIGN_ERRORS,
    decimal,
    decimals,
    foreign_errors_as,
    from_bytes,
    integer,
    item,
    text,
    texts,
)
from tfkt_node.slices.files import read_dataset
from tfkt_node.slices.structure import file_meta_end


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
        (b"1_0 ", None),
        (b"-1_024", None),
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


def test_number_of_a_broken_length_is_no_number() -> None:
    """Three bytes are no 16-bit number: pydicom has an exception of its own for it."""
    assert integer(raw("Rows", "US", b"\x01\x02\x03"), "Rows") is None


@pytest.mark.parametrize(("vr", "number"), [("DS", 0.0), ("LO", 0.0), ("US", None), ("SS", None)])
def test_text_of_a_number_is_not_read_as_binary(vr: str, number: float | None) -> None:
    """An intercept of "0 " under the VR of a binary number would be 8240."""
    assert decimal(raw("RescaleIntercept", vr, b"0 "), "RescaleIntercept") == number


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
    path = tmp_path / "file.dcm"
    path.write_bytes(content)

    with pytest.raises(SetAside) as caught:
        read_dataset(path)

    assert caught.value.reason is Reason.UNREADABLE


def test_file_cut_off_inside_a_sequence_is_unreadable_wherever_it_is_cut(tmp_path: Path) -> None:
    """pydicom raises OSError for some cuts, which says nothing about the disk."""
    ds = ct(ReferencedImageSequence=Sequence([Dataset(), Dataset()]), PixelData=None)
    for one in ds.ReferencedImageSequence:
        one.ReferencedSOPInstanceUID = "1.2.3"
        one.is_undefined_length_sequence_item = True
    ds["ReferencedImageSequence"].is_undefined_length = True
    path = tmp_path / "cut.dcm"
    ds.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)
    whole = path.read_bytes()
    start = whole.index(b"\x08\x00\x40\x11SQ")

    for length in range(start + 12, whole.index(b"\xfe\xff\xdd\xe0")):
        path.write_bytes(whole[:length])
        with pytest.raises(SetAside) as caught:
            read_dataset(path)
        assert caught.value.reason is Reason.UNREADABLE


def test_sequence_that_breaks_off_when_touched_is_not_there() -> None:
    """A sequence is parsed when its value is asked for: an OSError of that is none of the disk."""
    cut = raw("ReferencedImageSequence", "SQ", b"\xfe\xff\x00\xe0")

    assert item(cut, "ReferencedImageSequence") is None


def test_error_of_the_disk_says_nothing_about_the_file() -> None:
    """A disk that fails is no reason to set an instance aside: it is tried again."""

    def fail_within_a_sequence() -> None:
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError:
            raise OSError("No tag to read")  # noqa: B904 - as pydicom does

    with pytest.raises(OSError, match="Input/output"), foreign_errors_as(Reason.UNREADABLE, ""):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="No tag"), foreign_errors_as(Reason.UNREADABLE, ""):
        fail_within_a_sequence()


def deflated(content: bytes, cut: int | None = None) -> bytes:
    head = ct(PixelData=b"")
    head.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    buffer = DicomBytesIO()
    head.save_as(buffer, enforce_file_format=True)
    start, _ = file_meta_end(buffer.getvalue())
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return buffer.getvalue()[:start] + (deflate.compress(content) + deflate.flush())[:cut]


def test_deflated_data_set_inflates_no_further_than_the_limit(tmp_path: Path) -> None:
    """A few kilobytes that hold gigabytes cost the limit and no more."""
    bomb = tmp_path / "bomb.dcm"
    element = b"\x09\x00\x10\x10OB\0\0" + (48 << 20).to_bytes(4, "little")
    bomb.write_bytes(deflated(element + bytes(48 << 20)))
    tracemalloc.start()

    with pytest.raises(SetAside) as caught:
        read_dataset(bomb, limits=Limits(inflated_mb=8))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.detail == "inflates to more than 8 MB (limits.inflated_mb)"
    assert peak < 32 << 20


def test_deflated_data_set_that_breaks_off_is_unreadable(tmp_path: Path) -> None:
    """What is there of it is not taken for the whole."""
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(deflated(b"\x08\x00\x60\x00CS\x02\x00CT" + bytes(10), cut=-2))

    with pytest.raises(SetAside) as caught:
        read_dataset(cut)

    assert caught.value.detail == "the deflated data set breaks off"
