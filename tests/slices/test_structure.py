"""The look at the structure: limits, lengths and attributes that stand twice."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from tests.slices.ct_images import ct, enhanced
from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.files import read_dataset
from tfkt_node.slices.structure import file_meta_end, look_over

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def encoded(ds: Dataset, syntax: str = EXPLICIT) -> bytes:
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    dcmwrite(
        buffer, ds, enforce_file_format=True, implicit_vr=syntax == IMPLICIT,
        little_endian=syntax != BIG,
    )  # fmt: skip
    return buffer.getvalue()


def nested(levels: int, undefined: bool) -> Dataset:
    ds = ct()
    inner = Dataset()
    inner.CodeMeaning = "innermost"
    for _ in range(levels):
        outer = Dataset()
        outer.ConceptCodeSequence = Sequence([inner])
        outer["ConceptCodeSequence"].is_undefined_length = undefined
        inner = outer
    ds.update(inner)
    return ds


def look(data: bytes, syntax: str = EXPLICIT, **limits: int) -> object:
    start, _ = file_meta_end(data)
    return look_over(data, start, big_endian=syntax == BIG, limits=Limits(**limits))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("undefined", [True, False])
def test_nesting_is_counted_in_every_encoding(syntax: str, undefined: bool) -> None:
    """Thirty levels pass a limit of thirty, and thirty-one do not."""
    look(encoded(nested(30, undefined), syntax), syntax, nesting=30)

    with pytest.raises(SetAside) as caught:
        look(encoded(nested(31, undefined), syntax), syntax, nesting=30)

    assert caught.value.detail == "more than 30 levels of sequences (limits.nesting)"


def test_elements_of_sequences_are_counted() -> None:
    """Two hundred frames, each described by six elements in three items."""
    ds = enhanced(np.zeros((200, 1, 1), dtype=np.int16), [(1, 0)] * 200, range(200))
    data = encoded(ds)

    look(data, elements=1850)
    with pytest.raises(SetAside) as caught:
        look(data, elements=1800)

    assert caught.value.detail == "more than 1800 elements (limits.elements)"


@pytest.mark.parametrize("keyword", ["RescaleIntercept", "ImagePositionPatient", "Rows"])
def test_attribute_of_the_image_that_stands_twice_is_unreadable(keyword: str) -> None:
    """P6: readers differ on which of the two counts, and one of them is wrong by a thousand HU."""
    data = encoded(ct())
    tag = struct.pack("<HH", *divmod(tag_for_keyword(keyword), 0x10000))
    place = data.index(tag, file_meta_end(data)[0])
    twice = data[place : place + 8 + int.from_bytes(data[place + 6 : place + 8], "little")]

    with pytest.raises(SetAside) as caught:
        look(data[:place] + twice + data[place:])

    assert (caught.value.reason, caught.value.detail) == (
        Reason.UNREADABLE,
        "an attribute of the image stands twice",
    )


def test_fragments_are_counted() -> None:
    """A thousand fragments of nothing take as long as a thousand elements."""
    ds = ct()
    ds.PixelData = encapsulate([b"\0\0"] * 2000)
    ds["PixelData"].is_undefined_length = True
    data = encoded(ds, "1.2.840.10008.1.2.5")

    look(data, elements=2100)
    with pytest.raises(SetAside) as caught:
        look(data, elements=1900)

    assert caught.value.detail == "more than 1900 elements (limits.elements)"


@pytest.mark.parametrize("keyword", ["RescaleIntercept", "ImagePositionPatient"])
@pytest.mark.parametrize("undefined", [True, False])
def test_attribute_of_a_frame_that_stands_twice_is_unreadable(
    keyword: str, undefined: bool
) -> None:
    """P6: twice within one item; once in each of many items is what multi-frame objects have."""
    ds = enhanced(np.zeros((2, 1, 1), dtype=np.int16), [(1, 0)] * 2, range(2))
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        ds[groups].is_undefined_length = undefined
    data = encoded(ds)
    tag = struct.pack("<HH", *divmod(tag_for_keyword(keyword), 0x10000))
    place = data.index(tag)
    twice = data[place : place + 8 + data[place + 6]]
    look(data)
    longer = bytearray(data[:place] + twice + data[place:])
    lengthen(longer, place, len(twice))

    with pytest.raises(SetAside) as caught:
        look(bytes(longer))

    assert caught.value.detail == "an attribute of the image stands twice"


def lengthen(data: bytearray, place: int, by: int) -> None:
    """Add to the told length of every item and sequence that is open at a place."""
    for at in range(place):
        is_item = data[at : at + 4] == b"\xfe\xff\x00\xe0"
        is_sequence = data[at + 4 : at + 8] == b"SQ\0\0"
        field = at + 4 if is_item else at + 8
        if is_item or is_sequence:
            [length] = struct.unpack_from("<L", data, field)
            if length != 0xFFFFFFFF and field + 4 + length >= place:
                struct.pack_into("<L", data, field, length + by)


@pytest.mark.parametrize(
    "keyword", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
)
def test_second_functional_groups_are_unreadable(keyword: str) -> None:
    """P6: another (5200,9229) behind the first gave its rescale to all frames, in silence."""
    ds = enhanced(np.zeros((2, 1, 1), dtype=np.int16), [(1, 0)] * 2, range(2))
    data = encoded(ds)
    tag = struct.pack("<HH", *divmod(tag_for_keyword(keyword), 0x10000)) + b"SQ\0\0"
    place = data.index(tag)
    end = place + 12 + struct.unpack_from("<L", data, place + 8)[0]

    with pytest.raises(SetAside) as caught:
        look(data[:end] + data[place:])

    assert caught.value.detail == "an attribute of the image stands twice"


def test_attribute_of_an_icon_may_be_that_of_the_image_too() -> None:
    """Rows of an icon are not a second Rows of the image."""
    ds, icon = ct(), Dataset()
    icon.Rows, icon.Columns = 8, 8
    ds.IconImageSequence = Sequence([icon, icon])

    look(encoded(ds))


UN_SEQUENCE = b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff"
UNDEFINED_ITEM, ITEM_END = b"\xfe\xff\0\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
EXPLICIT_ELEMENT = b"\x28\x00\x10\x00US\x02\x00\x07\x00"
IMPLICIT_ELEMENT = b"\x28\x00\x10\x00\x02\x00\x00\x00\x07\x00"


@pytest.mark.parametrize(
    "private",
    [
        UN_SEQUENCE + UNDEFINED_ITEM + EXPLICIT_ELEMENT + ITEM_END + SEQUENCE_END,
        UN_SEQUENCE + UNDEFINED_ITEM + IMPLICIT_ELEMENT + ITEM_END + SEQUENCE_END,
        UN_SEQUENCE + b"\xfe\xff\0\xe0\x0a\0\0\0" + EXPLICIT_ELEMENT + SEQUENCE_END,
        b"\x09\x00\x10\x10UN\0\0\x0c\0\0\0" + b"\xfe\xff\0\xe0\xff\xff\xff\xff abc",
    ],
    ids=["explicit items", "implicit items", "items of a length", "bytes that begin like an item"],
)
def test_private_element_of_unknown_vr_does_no_harm(tmp_path: Path, private: bytes) -> None:
    """Whatever lies in it, the attributes of the image behind it are found (PS3.5 6.2.2)."""
    data = encoded(ct())
    place = data.index(b"\x18\x00\x50\x00DS")
    path = tmp_path / "ct.dcm"
    path.write_bytes(data[:place] + private + data[place:])

    ds = read_dataset(path, pixels=True)

    assert (ds.SliceThickness, ds.Rows, len(ds.PixelData)) == (5, 4, 32)


def test_element_longer_than_its_sequence_is_cut_and_the_rest_is_found() -> None:
    """The walk never goes back: levels that overrun each other do not double the way."""
    inner = b"\x09\x00\x10\x10SQ\0\0\x00\x10\x00\x00\xfe\xff\0\xe0\x00\x10\x00\x00"
    data = encoded(ct())
    place = data.index(b"\x18\x00\x50\x00DS")
    nest = inner * 40
    outer = b"\x09\x00\x10\x10SQ\0\0" + struct.pack("<L", len(nest)) + nest

    look(data[:place] + outer + data[place:], elements=1000)


def test_what_follows_the_pixel_data_harms_nothing(tmp_path: Path) -> None:
    """Bytes behind the last element, whatever they are, are not read."""
    path = tmp_path / "ct.dcm"
    path.write_bytes(encoded(ct()) + b"\xff" * 1000)

    assert len(read_dataset(path, pixels=True).PixelData) == 32


def test_element_longer_than_the_file_is_unreadable(tmp_path: Path) -> None:
    """pydicom takes what is there, and the rest of the data set with it."""
    data = encoded(ct())
    place = data.index(b"\x28\x00\x10\x00US")
    path = tmp_path / "ct.dcm"
    path.write_bytes(data[: place + 6] + struct.pack("<H", 65534) + data[place + 8 :])

    with pytest.raises(SetAside) as caught:
        read_dataset(path)

    assert caught.value.detail == "an element is longer than the file"


def test_file_meta_ends_where_its_elements_end() -> None:
    """A group length that is wrong or missing moves nothing."""
    data = encoded(ct())
    end, syntax = file_meta_end(data)

    assert (end, syntax) == (144 + struct.unpack("<L", data[140:144])[0], EXPLICIT)
    assert (end, syntax) == file_meta_end(data[:140] + b"\x14\0\0\0" + data[144:])
    assert (end - 12, syntax) == file_meta_end(data[:132] + data[144:])
