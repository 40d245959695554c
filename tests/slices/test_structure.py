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
from pydicom.sequence import Sequence

from tests.slices.ct_images import ct, enhanced
from tfkt_node.records import Reason, SetAside
from tfkt_node.settings import Limits
from tfkt_node.slices.attributes import read_dataset
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
    """Two hundred frames, each described by six elements."""
    ds = enhanced(np.zeros((200, 1, 1), dtype=np.int16), [(1, 0)] * 200, range(200))
    data = encoded(ds)

    look(data, elements=1250)
    with pytest.raises(SetAside) as caught:
        look(data, elements=1200)

    assert caught.value.detail == "more than 1200 elements (limits.elements)"


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
