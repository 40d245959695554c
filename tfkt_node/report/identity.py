"""Patient and study in the node's objects: the bytes that the images carry, untouched.

A PACS files by these values, so they are copied without being decoded: any character set, odd
values and all. What is missing stays missing, or empty where the standard wants an element of
type 2. Supplied is only what an object cannot be valid without: a Study Instance UID.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element

from tfkt_node.records import PATIENT_AND_STUDY, Permanent, ReportRecord
from tfkt_node.report import uids

TYPE_2 = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "StudyID",
)  # fmt: skip
"""Elements that must be there, if need be empty (PS3.3 C.7.1.1, C.7.2.1)."""

CHARACTER_SET = 0x00080005
STUDY_UID = 0x0020000D
TIMEZONE = 0x00080201

_COPIED_TAGS = frozenset(tag_for_keyword(keyword) for keyword in PATIENT_AND_STUDY)


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient and study of one report.

    elements: tag -> the whole element, encoded in Explicit VR Little Endian, Study Instance UID
    included. made_at: the decision in the study's own zone, or in UTC where it states none.
    """

    study_uid: str
    series_uid: str
    elements: dict[int, bytes]
    made_at: datetime


def identity_of(record: ReportRecord) -> Identity:
    """Take patient, study and time zone from a record.

    Raises Permanent where the stored attributes are no data set.
    """
    found = _split(record.attributes)
    study_uid = record.study_uid
    if not uids.usable(study_uid):
        study_uid = uids.derived("study", record.patient_id, record.series_uid)
    series_uid = record.series_uid
    if not uids.usable(series_uid):
        series_uid = uids.derived("series", record.patient_id, study_uid)

    copied = _COPIED_TAGS & found.keys()
    elements = {tag: found[tag].encoded for tag in copied}
    for keyword in TYPE_2:
        tag = int(tag_for_keyword(keyword))
        elements.setdefault(tag, encoded(DataElement(tag, dictionary_VR(tag), None)))
    elements[STUDY_UID] = encoded(DataElement(STUDY_UID, "UI", study_uid))
    plain = all(found[tag].value.isascii() for tag in copied)
    character_set = found[CHARACTER_SET].text if CHARACTER_SET in found else ""
    # Empty, it says what its absence says, and would make the object invalid.
    if character_set and not (plain and _is_nonsense(character_set)):
        elements[CHARACTER_SET] = found[CHARACTER_SET].encoded
    zone = _zone(found[TIMEZONE].text) if TIMEZONE in found else None
    if zone is not None:
        elements[TIMEZONE] = found[TIMEZONE].encoded
    return Identity(study_uid, series_uid, elements, record.decided_at.astimezone(zone or UTC))


def encoded(element: DataElement) -> bytes:
    """Encode one element of ASCII values in Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return bytes(buffer.getvalue())


class _Stored(NamedTuple):
    encoded: bytes
    value: bytes

    @property
    def text(self) -> str:
        return self.value.decode("ascii", "replace").strip(" \0")


def _split(attributes: bytes) -> dict[int, _Stored]:
    """Cut an encoded data set into its elements without reading any value (PS3.5 7.1.2).

    Sequences have a defined length, as reception writes them. pydicom is not asked: it decodes
    character sets on the way and warns with the values.
    """
    found: dict[int, _Stored] = {}
    at = 0
    while at < len(attributes):
        head = attributes[at : at + 12].ljust(12, b"\0")
        group, element, vr, short, long = struct.unpack("<HH2sHL", head)
        start, length = (at + 12, long) if vr in _LONG_VRS else (at + 8, short)
        if not vr.isalpha() or start + length > len(attributes):
            raise Permanent(
                "the stored patient and study attributes are no Explicit VR Little Endian data "
                f"set: element {len(found) + 1} is damaged",
                cure="run `tfkt-node audit verify`; the audit store may be damaged",
            )
        end = start + length
        found[group << 16 | element] = _Stored(attributes[at:end], attributes[start:end])
        at = end
    return found


_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


def _is_nonsense(character_set: str) -> bool:
    """Tell whether a Specific Character Set holds a term that is none ("Not Supplied" occurs).

    Over plain ASCII it tells nothing and would make a valid object invalid.
    """
    return any(term.strip() not in python_encoding for term in character_set.split("\\"))


def _zone(offset: str) -> timezone | None:
    """Return the zone of Timezone Offset From UTC: &ZZXX, -1200 to +1400 (PS3.3 C.12.1.1.8)."""
    match = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", offset, re.ASCII)
    if match is None:
        return None
    minutes = int(f"{match[1]}{60 * int(match[2]) + int(match[3])}")
    # The standard forbids "-0000", which elsewhere stands for an unknown zone.
    if offset == "-0000" or not -720 <= minutes <= 840:
        return None
    return timezone(timedelta(minutes=minutes))
