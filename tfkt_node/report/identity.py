"""Patient and study in the node's objects: the bytes that the images carry, untouched.

A PACS files by these values, so they are copied without being decoded: any character set, odd
values and all. What is missing stays missing, or empty where the standard wants an element of
type 2. Supplied is only what an object cannot be valid without: a Study Instance UID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement

from tfkt_node.records import PATIENT_AND_STUDY, ReportRecord
from tfkt_node.report import uids
from tfkt_node.report.elements import (
    CHARACTER_SET,
    Stored,
    encoded,
    encoded_sequence,
    is_plain,
    items,
    split,
)

TYPE_2 = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "StudyID",
)  # fmt: skip
"""Elements that must be there, if need be empty (PS3.3 C.7.1.1, C.7.2.1)."""

REQUEST_TYPE_2 = (
    "AccessionNumber", "ReferencedStudySequence", "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence", "RequestedProcedureID",
    "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
)  # fmt: skip
"""Elements of an item of Referenced Request Sequence that must be there, if need be empty."""

REQUEST_TYPE_3 = (
    "IssuerOfAccessionNumberSequence", "OrderPlacerIdentifierSequence",
    "OrderFillerIdentifierSequence", "ReasonForTheRequestedProcedure",
    "ReasonForRequestedProcedureCodeSequence",
)  # fmt: skip
"""What such an item may hold besides (PS3.3 C.17.2, C.17.6.2)."""

STUDY_UID = 0x0020000D
TIMEZONE = 0x00080201
REQUEST_ATTRIBUTES, REFERENCED_REQUESTS = 0x00400275, 0x0040A370

_COPIED_TAGS = frozenset(tag_for_keyword(keyword) for keyword in PATIENT_AND_STUDY)
_REQUEST_TAGS = [int(tag_for_keyword(word) or 0) for word in (*REQUEST_TYPE_2, *REQUEST_TYPE_3)]


@dataclass(frozen=True, slots=True)
class Identity:
    """Patient and study of one report.

    elements: tag -> the whole element, encoded in Explicit VR Little Endian, Study Instance UID
    included. requests: alike, for the documents (SR, KOS) alone: Referenced Request Sequence, empty
    where the images name no request. made_at: the decision in the study's own zone, or in that of
    the record where it states none: a PACS takes an unmarked time for the local one.
    """

    study_uid: str
    series_uid: str
    elements: dict[int, bytes]
    requests: dict[int, bytes]
    made_at: datetime


def identity_of(record: ReportRecord) -> Identity:
    """Take patient, study and time zone from a record.

    Raises Permanent where the stored attributes are no data set.
    """
    found = split(record.attributes)
    study_uid = record.study_uid
    if not uids.usable(study_uid):
        study_uid = uids.derived("study", record.patient_id, record.series_uid)
    series_uid = record.series_uid
    if not uids.usable(series_uid):
        series_uid = uids.derived("series", record.patient_id, study_uid)

    copied = _COPIED_TAGS & found.keys()
    elements = {tag: found[tag].encoded for tag in copied}
    _fill(elements, TYPE_2)
    elements[STUDY_UID] = encoded(DataElement(STUDY_UID, "UI", study_uid))
    requests = _requests(found, elements[STUDY_UID])
    plain = all(is_plain(found[tag]) for tag in copied | ({REQUEST_ATTRIBUTES} & found.keys()))
    character_set = found[CHARACTER_SET].text if CHARACTER_SET in found else ""
    # Empty, it says what its absence says, and would make the object invalid.
    if character_set and not (plain and _is_nonsense(character_set)):
        elements[CHARACTER_SET] = found[CHARACTER_SET].encoded
    zone = _zone(found[TIMEZONE].text) if TIMEZONE in found else None
    if zone is not None:
        elements[TIMEZONE] = found[TIMEZONE].encoded
    made_at = record.decided_at.astimezone(zone) if zone else record.decided_at
    return Identity(study_uid, series_uid, elements, requests, made_at)


def _fill(elements: dict[int, bytes], type_2: Iterable[str]) -> None:
    """Put empty elements where the standard wants at least that."""
    for keyword in type_2:
        tag = int(tag_for_keyword(keyword) or 0)
        empty: Any = [] if dictionary_VR(tag) == "SQ" else None
        elements.setdefault(tag, encoded(DataElement(tag, dictionary_VR(tag), empty)))


def _requests(found: dict[int, Stored], study: bytes) -> dict[int, bytes]:
    """Turn the images' Request Attributes Sequence into Referenced Request Sequence.

    A RIS files a document by it. One item for each that says anything of a request. study: the
    element that stands in where an item names no study, which is of type 1.
    """
    contents = []
    for item in items(found[REQUEST_ATTRIBUTES].value) if REQUEST_ATTRIBUTES in found else ():
        elements = {
            tag: item[tag].encoded for tag in _REQUEST_TAGS if tag in item and item[tag].text
        }
        if elements:
            named = STUDY_UID in item and uids.usable(item[STUDY_UID].text)
            elements[STUDY_UID] = item[STUDY_UID].encoded if named else study
            _fill(elements, REQUEST_TYPE_2)
            contents.append(b"".join(elements[tag] for tag in sorted(elements)))
    if not contents:
        return {}
    return {REFERENCED_REQUESTS: encoded_sequence(REFERENCED_REQUESTS, contents)}


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
