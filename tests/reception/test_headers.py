"""Headers of every kind of quality."""

from __future__ import annotations

import io
import tracemalloc
import zlib

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from tfkt_node.reception.elements import EXPLICIT_LITTLE, IMPLICIT_LITTLE, walk
from tfkt_node.reception.file_meta import encode_meta
from tfkt_node.reception.headers import COPIED, HEADER_BYTES, read_header
from tfkt_node.records import CT_IMAGE


def meta_of(syntax):
    return encode_meta(CT_IMAGE, "1.2.3.9", str(syntax), "SCANNER")


SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def encoded(ds, syntax):
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, ds)
    content = buffer.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(content) + packer.flush()
    return content


@pytest.fixture
def read(tmp_path):
    def read(content, syntax=ExplicitVRLittleEndian):
        path = tmp_path / "instance.dcm"
        path.write_bytes(meta_of(syntax) + bytes(content))
        return read_header(path)

    return read


@pytest.fixture
def ct(make_ct):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CT1", "99X", "Chest"
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProtocolCodeSequence = Sequence([code])
    return make_ct(
        SpecificCharacterSet="ISO_IR 100",
        PatientID=" ID 1 ",
        PatientName="Jos\xe9^X^^^",
        AccessionNumber="A1",
        StudyDate="20260102",
        SeriesDescription="K\xf6rper",
        SeriesNumber=3,
        InstanceNumber=7,
        ImagesInAcquisition=40,
        Manufacturer="Maker",
        PatientSize="1.7",
        RequestAttributesSequence=Sequence([request]),
    )


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_header_is_read_in_every_encoding(read, ct, syntax):
    """The index gets the same from every uncompressed and deflated encoding."""
    header = read(encoded(ct, syntax), syntax)

    assert header.patient_id == "ID 1"
    assert (header.study_uid, header.series_uid) == ("1.2.3", "1.2.3.4")
    assert (header.modality, header.accession_number) == ("CT", "A1")
    assert header.study_date == "20260102"
    assert header.series_description == "K\xf6rper"
    assert (header.instance_number, header.expected_count) == (7, 40)
    assert not header.made_by_this_node


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [True, False])
def test_attributes_are_copied_verbatim(read, ct, syntax, undefined):
    """What a report copies is Explicit VR Little Endian with the values of the source."""
    ct["RequestAttributesSequence"].is_undefined_length = undefined

    header = read(encoded(ct, syntax), syntax)

    copied = pydicom.dcmread(io.BytesIO(meta_of(ExplicitVRLittleEndian) + header.attributes))
    assert copied.get_item("PatientName").value == b"Jos\xe9^X^^^ "
    assert copied.get_item("PatientID").value == b" ID 1 "
    assert copied.get_item("SeriesDescription").value == b"K\xf6rper"
    assert copied.SeriesNumber == 3
    assert copied.PatientSize == 1.7
    assert copied.RequestAttributesSequence == ct.RequestAttributesSequence
    assert {int(element.tag) for element in copied} <= set(COPIED)


def test_wrong_declaration_of_the_encoding_is_seen_through(read, ct):
    """Explicit VR sent as implicit, or the other way round, is read as what it is."""
    explicit = read(encoded(ct, ExplicitVRLittleEndian), ImplicitVRLittleEndian)
    implicit = read(encoded(ct, ImplicitVRLittleEndian), ExplicitVRLittleEndian)

    assert explicit == implicit == read(encoded(ct, ExplicitVRLittleEndian))


def test_missing_series_uid_makes_a_series_of_one(read, make_ct):
    """A missing Series Instance UID is replaced by the SOP Instance UID of the file."""
    ds = make_ct()
    del ds.SeriesInstanceUID

    assert read(encoded(ds, ExplicitVRLittleEndian)).series_uid == "1.2.3.9"


@pytest.mark.parametrize(
    ("attributes", "own"),
    [
        ({"Manufacturer": "tfkt-node"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "Manufacturer": "X",
          "SeriesDescription": "CT image quality: LIMITED"}, True),
        ({"SeriesDescription": "CT image quality: LIMITED"}, False),
    ],
)  # fmt: skip
def test_own_objects_are_known_when_they_come_back(read, make_ct, attributes, own):
    """What the node made is recognised after a PACS has replaced its file meta information."""
    content = encoded(make_ct(**attributes), ExplicitVRLittleEndian)

    assert read(content).made_by_this_node is own


@pytest.mark.parametrize(
    ("character_set", "raw", "expected"),
    [
        (b"ISO_IR 192", "Größe 胸".encode(), "Größe 胸"),
        (b"\\ISO 2022 IR 87", "胸部".encode("iso2022_jp"), "胸部"),
        (b"NONSENSE", b"K\xf6rper", "K\xf6rper"),
        (b"ISO_IR 192", b"K\xf6rper", "K\ufffdrper"),
        (b"", b"a\0b", "ab"),
    ],
)
def test_texts_are_decoded_or_replaced(read, character_set, raw, expected):
    """A text that its character set cannot decode is replaced, not fatal; NUL never gets out."""
    content = element(0x0008, 0x0005, b"CS", character_set) + element(0x0008, 0x103E, b"LO", raw)

    assert read(content).series_description == expected


def element(group, number, vr, value):
    value += b" " * (len(value) % 2)
    return (
        group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
        + len(value).to_bytes(2, "little") + value
    )  # fmt: skip


def test_header_before_a_broken_place_is_kept(read, ct):
    """A truncated data set gives what stands before the cut, for every cut."""
    whole = encoded(ct, ExplicitVRLittleEndian)

    for cut in range(0, len(whole) - len(ct.PixelData), 7):
        header = read(whole[:cut])
        assert header.patient_id in ("", "ID 1")


@given(st.binary(max_size=300))
def test_any_bytes_end_the_walk(content):
    """Whatever the bytes are, the walk ends, within them."""
    for encoding in (EXPLICIT_LITTLE, IMPLICIT_LITTLE):
        for found in walk(content, 0, len(content), encoding):
            assert 0 <= found.start <= found.end <= len(content)


def test_deep_nesting_ends_the_walk(read, ct):
    """Nesting without end is given up, and what came before is kept."""
    deep = b"\x10\x00\x00\x99SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    content = element(0x0008, 0x0060, b"CS", b"CT") + deep * 100_000

    assert read(content).modality == "CT"


def test_sequence_too_large_for_a_report_is_not_copied(read):
    """Half a megabyte of nested items would hold up all other series while it was copied."""
    item = b"\xfe\xff\x00\xe0" + (8).to_bytes(4, "little") + element(0x0008, 0x0100, b"SH", b"")
    header = b"\x40\x00\x75\x02SQ\0\0"
    fits, too_large = 10 * item, 40_000 * item

    for items, is_copied in ((fits, True), (too_large, False)):
        content = element(0x0008, 0x0060, b"CS", b"CT") + header
        attributes = read(content + len(items).to_bytes(4, "little") + items).attributes
        assert (header in attributes) is is_copied


@pytest.mark.station
def test_deflate_bomb_does_not_go_off(read):
    """Of a deflated data set no more is inflated than a header can need."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(element(0x0008, 0x0060, b"CS", b"CT"))
    bomb += packer.compress(b"\xff" * (64 << 20)) + packer.flush()

    tracemalloc.start()
    header = read(bomb, DeflatedExplicitVRLittleEndian)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert header.modality == "CT"
    assert peak_bytes < 3 * HEADER_BYTES


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_private_elements_of_a_sequence_are_not_copied(read, ct, syntax):
    """The node's objects have no private attributes, whatever a scanner hides in its sequences."""
    (request,) = ct.RequestAttributesSequence
    request.add_new(0x00110010, "LO", "MAKER 1.0")
    request.add_new(0x00111001, "SQ", [Dataset()])
    request.ScheduledProtocolCodeSequence[0].add_new(0x00110010, "LO", "MAKER 1.0")

    attributes = read(encoded(ct, syntax), syntax).attributes

    copied = pydicom.dcmread(io.BytesIO(meta_of(ExplicitVRLittleEndian) + attributes))
    (found,) = copied.RequestAttributesSequence
    assert ("RP1", "CT1") == (
        found.RequestedProcedureID, found.ScheduledProtocolCodeSequence[0].CodeValue,
    )  # fmt: skip
    assert not [element for element in copied.iterall() if element.tag.is_private]


def test_sequence_of_unknown_vr_is_copied(read, ct):
    """A sequence that passed through a system without its VR is implicit VR inside."""
    inside = encoded(ct.RequestAttributesSequence[0], ImplicitVRLittleEndian)
    item = b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
    header = b"\x40\x00\x75\x02UN\0\0"
    defined = header + len(item).to_bytes(4, "little") + item
    undefined = header + b"\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"

    for content in (defined, undefined):
        attributes = read(content).attributes
        copied = pydicom.dcmread(io.BytesIO(meta_of(ExplicitVRLittleEndian) + attributes))
        assert copied.RequestAttributesSequence == ct.RequestAttributesSequence
