"""Read what the index needs from the header of a stored instance, whatever its content.

Nothing is decoded but a handful of short texts; what a report copies later is kept in the bytes and
the character set of its source. Pixel data are never touched.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from tfkt_node.character_sets import codec_of
from tfkt_node.file_bytes import Buffer, open_bytes
from tfkt_node.reception.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Element,
    Encoding,
    explicit_little,
    sniff_encoding,
    walk,
)
from tfkt_node.reception.file_meta import SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID, parse_meta
from tfkt_node.records import PATIENT_AND_STUDY, InstanceHeader, SetAside

SERIES_AND_SCANNER = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyInstanceUID", "SeriesNumber",
    "SeriesDescription", "BodyPartExamined", "ProtocolName", "RequestAttributesSequence",
    "Manufacturer", "ManufacturerModelName", "InstitutionName", "StationName", "DeviceSerialNumber",
)  # fmt: skip
COPIED = frozenset(
    int(tag_for_keyword(keyword) or 0) for keyword in (*PATIENT_AND_STUDY, *SERIES_AND_SCANNER)
)
"""Tags of the attributes that a report may copy or name, all of them ahead of the pixel data."""

CHARACTER_SET, MODALITY, SERIES_DESCRIPTION = 0x00080005, 0x00080060, 0x0008103E
MANUFACTURER, SOP_CLASS = 0x00080070, 0x00080016
STUDY_DATE, ACCESSION_NUMBER = 0x00080020, 0x00080050
PATIENT_ID, STUDY_UID, SERIES_UID = 0x00100020, 0x0020000D, 0x0020000E
INSTANCE_NUMBER, IMAGES_IN_ACQUISITION, IN_SERIES = 0x00200013, 0x00201002, 0x00201209
READ = COPIED | {
    MODALITY,
    SOP_CLASS,
    SERIES_UID,
    INSTANCE_NUMBER,
    IMAGES_IN_ACQUISITION,
    IN_SERIES,
}
LAST = max(READ)

OWN_MANUFACTURER = "tfkt-node"
OWN_DESCRIPTION = "CT image quality"
OWN_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.22",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.88.59",
)
"""Enhanced SR, Comprehensive SR, Key Object Selection: what this node makes."""

HEADER_BYTES = 8 << 20
"""The header is looked for in this much of a data set, inflated or not: a bomb does not go off."""

COPIED_BYTES = 256 << 10
"""No single attribute that a report copies needs more; nested sequences take time to copy."""

DEFLATED = (DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
"""Syntaxes whose data set is deflated as a whole: plain, and JPIP referenced."""

ENCODINGS = {
    str(ImplicitVRLittleEndian): IMPLICIT_LITTLE,
    str(ExplicitVRBigEndian): EXPLICIT_BIG,
}


def read_header(path: Path) -> InstanceHeader:
    """Read the header of a stored instance. Odd content is no error: what cannot be read is ''.

    A missing Series Instance UID is replaced by the SOP Instance UID: a series of one. Raises
    OSError when the file is gone.
    """
    with open_bytes(path) as data:
        try:
            meta, start = parse_meta(data)
        except SetAside:
            return _header(b"", {}, "")
        sop_uid = meta.get(SOP_INSTANCE_UID, "")
        if meta.get(TRANSFER_SYNTAX_UID) in DEFLATED:
            inflated = _inflate(data[start : start + HEADER_BYTES])
            return _header(inflated, _elements(inflated, 0, EXPLICIT_LITTLE), sop_uid)
        encoding = ENCODINGS.get(meta.get(TRANSFER_SYNTAX_UID, ""), EXPLICIT_LITTLE)
        return _header(data, _elements(data, start, encoding), sop_uid)


def _inflate(deflated: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, HEADER_BYTES)
    except zlib.error:
        return b""


def _elements(buffer: Buffer, start: int, declared: Encoding) -> dict[int, Element]:
    found: dict[int, Element] = {}
    encoding = sniff_encoding(buffer, start, declared)
    end = min(len(buffer), start + HEADER_BYTES)
    for element in walk(buffer, start, end, encoding):
        if element.tag > LAST:
            break  # what follows, such as the pixel data, is not looked at
        if element.tag in READ:
            found.setdefault(element.tag, element)
    return found


def _header(buffer: Buffer, found: dict[int, Element], sop_uid: str) -> InstanceHeader:
    codec = codec_of(_value(buffer, found, CHARACTER_SET))

    def text(tag: int) -> str:
        # NUL is removed everywhere: no value may hold it, and PostgreSQL refuses it.
        return _value(buffer, found, tag).decode(codec, "replace").replace("\0", "").strip()

    manufacturer, description = text(MANUFACTURER), text(SERIES_DESCRIPTION)
    return InstanceHeader(
        patient_id=text(PATIENT_ID),
        study_uid=text(STUDY_UID),
        series_uid=text(SERIES_UID) or sop_uid,
        modality=text(MODALITY),
        accession_number=text(ACCESSION_NUMBER),
        study_date=text(STUDY_DATE),
        series_description=description,
        instance_number=_number(text(INSTANCE_NUMBER)),
        expected_count=_count(text(IN_SERIES)) or _count(text(IMAGES_IN_ACQUISITION)),
        made_by_this_node=manufacturer == OWN_MANUFACTURER
        or (description.startswith(OWN_DESCRIPTION) and text(SOP_CLASS) in OWN_CLASSES),
        attributes=b"".join(
            explicit_little(buffer, found[tag])
            for tag in sorted(COPIED)
            if tag in found and found[tag].end - found[tag].start <= COPIED_BYTES
        ),
    )


def _value(buffer: Buffer, found: dict[int, Element], tag: int) -> bytes:
    element = found.get(tag)
    return bytes(buffer[element.start : element.end]) if element else b""


def _number(text: str) -> int | None:
    """Parse an Integer String (PS3.5 section 6.2), 32 bits."""
    if not re.fullmatch(r"[+-]?\d{1,11}", text, re.ASCII):
        return None
    number = int(text)
    return number if -(2**31) <= number < 2**31 else None


def _count(text: str) -> int | None:
    number = _number(text)
    return number if number is not None and number > 0 else None
