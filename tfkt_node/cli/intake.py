"""Files and folders given to a command, each brought to exactly one statement.

A file is taken as a sender would send it: SOP Class and Instance UID from the data set, else from
the file meta information; one without file meta information gets it, in a temporary folder.
Guarantees that every path given is listed once, and that no file stops the others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tfkt_node.file_bytes import Buffer, open_bytes
from tfkt_node.reception import file_meta
from tfkt_node.reception.elements import EXPLICIT_LITTLE, sniff_encoding, walk
from tfkt_node.reception.file_meta import encode_meta, parse_meta
from tfkt_node.reception.headers import read_header
from tfkt_node.reception.incoming import begin_digest
from tfkt_node.reception.instances import is_uid
from tfkt_node.records import CT_CLASSES, InstanceHeader, InstanceRef, Reason, SetAside

DICOMDIR = "1.2.840.10008.1.3.10"
IMPLICIT_VR = "1.2.840.10008.1.2"
EXPLICIT_VR = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

SOP_CLASS_UID, SOP_INSTANCE_UID = 0x00080016, 0x00080018
PIECE_BYTES = 4 << 20
"""Files are hashed and copied in pieces of this size."""

LONGEST_UID_BYTES = 256
"""UIDs have 64; those that are too long are read as well, to be refused for it."""


class FileOutcome(StrEnum):
    """What became of a path (design 7)."""

    SCORED = "scored"
    NOT_ASSESSED = "not_assessed"
    SET_ASIDE = "set_aside"
    REFUSED = "refused"
    DUPLICATE = "duplicate"


class Refusal(StrEnum):
    """Why a path was refused. One sentence each."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Refusal:
        """Keep the sentence beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member

    NOT_A_FILE = "NOT_A_FILE", "The path is no regular file."
    CANNOT_OPEN = "CANNOT_OPEN", "The file cannot be opened for reading."
    NOT_DICOM = "NOT_DICOM", "The file is not DICOM."
    DICOMDIR = "DICOMDIR", "The file is a DICOM directory, not an instance."
    INVALID_UID = (
        "INVALID_UID",
        "SOP Class or Instance UID is missing or not 1 to 64 digits and dots.",
    )


@dataclass(frozen=True, slots=True)
class GivenFile:
    """One path given, and what is known of it. outcome: None until its series is assessed.

    path: as given, or found under the folder given. duplicate_of: another path with these bytes.
    """

    path: Path
    outcome: FileOutcome | None
    reason: Reason | Refusal | None = None
    instance: InstanceRef | None = None
    header: InstanceHeader | None = None
    duplicate_of: Path | None = None

    @property
    def series_key(self) -> tuple[str, str, str]:
        """(Patient ID, Study UID, Series UID): two patients under one UID are two series."""
        assert self.header is not None
        return self.header.patient_id, self.header.study_uid, self.header.series_uid


@dataclass(frozen=True, slots=True)
class GivenSeries:
    """The CT instances of one series that are to be assessed, by instance number, then UID."""

    study_uid: str
    series_uid: str
    files: tuple[GivenFile, ...]

    @property
    def instances(self) -> tuple[InstanceRef, ...]:
        """What the scorer takes."""
        return tuple(given.instance for given in self.files if given.instance is not None)

    @property
    def description(self) -> str:
        """Series Description of the first instance, '' where it has none."""
        header = self.files[0].header
        return header.series_description if header is not None else ""

    @property
    def attributes(self) -> bytes:
        """Patient and study attributes of the first instance, see InstanceHeader."""
        header = self.files[0].header
        return header.attributes if header is not None else b""


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield every file given or under a folder given, once each, folders in the order of names."""
    seen: set[str] = set()
    for given in paths:
        for path in _files_under(given) if given.is_dir() else [given]:
            place = os.path.abspath(path)
            if place not in seen:
                seen.add(place)
                yield path


def _files_under(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))


def read_file(path: Path, scratch: Path) -> GivenFile:
    """Say of one path what it is. scratch: folder for files that need file meta information."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return _refused(path, Refusal.NOT_A_FILE)
        with path.open("rb"):
            pass
        instance = _identify(path, scratch)
    except OSError:
        return _refused(path, Refusal.CANNOT_OPEN)
    if isinstance(instance, Refusal):
        return _refused(path, instance)
    header = read_header(instance.path)
    given = GivenFile(path, None, instance=instance, header=header)
    if header.made_by_this_node:
        return replace(given, outcome=FileOutcome.SET_ASIDE, reason=Reason.OWN_OBJECT)
    if instance.sop_class_uid not in CT_CLASSES:
        return replace(given, outcome=FileOutcome.SET_ASIDE, reason=Reason.NOT_CT)
    return given


def _refused(path: Path, why: Refusal) -> GivenFile:
    return GivenFile(path, FileOutcome.REFUSED, why)


def _identify(path: Path, scratch: Path) -> InstanceRef | Refusal:
    if path.stat().st_size == 0:
        return Refusal.NOT_DICOM
    with open_bytes(path) as data:
        meta, start = _file_meta(data)
        sop_class, sop_uid, syntax = _uids(data, meta, start)
        if not meta and not (sop_class and sop_uid):
            return Refusal.NOT_DICOM
        if sop_class == DICOMDIR:
            return Refusal.DICOMDIR
        if not (is_uid(sop_class) and is_uid(sop_uid) and is_uid(syntax)):
            return Refusal.INVALID_UID
        sha = begin_digest(sop_class, sop_uid, syntax)
        for piece in _pieces(data, start):
            sha.update(piece)
        digest = sha.hexdigest()
        if not _tells(data, start, (sop_class, sop_uid, syntax)):
            path = scratch / f"{digest}.dcm"
            with path.open("wb") as whole:
                whole.write(encode_meta(sop_class, sop_uid, syntax, ""))
                whole.writelines(_pieces(data, start))
        return InstanceRef(path, digest, sop_class, sop_uid)


def _pieces(data: Buffer, start: int) -> Iterator[bytes]:
    for at in range(start, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def _file_meta(data: Buffer) -> tuple[dict[int, str], int]:
    """Return element number -> text of group 0002, and where the data set starts.

    Laxer than for files of the spool: preamble, prefix or the group length may be missing or wrong,
    and the VRs too.
    """
    is_bare = data[:2] == b"\2\0"
    starts = [at for at in (132, 4) if data[at - 4 : at] == b"DICM"] or ([0] if is_bare else [])
    if not starts:
        return {}, 0
    meta, start = {}, starts[0]
    for element in walk(data, start, len(data), sniff_encoding(data, start, EXPLICIT_LITTLE)):
        if element.tag >> 16 != 2:
            break
        value = data[element.start : element.end]
        meta[element.tag & 0xFFFF] = value.decode("latin-1").rstrip("\0 ")
        start = element.end
    if starts == [0] and not is_uid(meta.get(file_meta.TRANSFER_SYNTAX_UID, "")):
        return {}, 0  # something that happens to begin like it
    return meta, start


def _tells(data: Buffer, start: int, uids: tuple[str, str, str]) -> bool:
    """Tell whether the file's own file meta information says all this."""
    try:
        meta, data_set_start = parse_meta(data)
    except SetAside:
        return False
    numbers = (file_meta.SOP_CLASS_UID, file_meta.SOP_INSTANCE_UID, file_meta.TRANSFER_SYNTAX_UID)
    return data_set_start == start and uids == tuple(meta.get(number) for number in numbers)


def _uids(data: Buffer, meta: Mapping[int, str], start: int) -> tuple[str, str, str]:
    """Return SOP Class UID, SOP Instance UID and Transfer Syntax UID; '' where one is missing."""
    encoding = sniff_encoding(data, start, EXPLICIT_LITTLE)
    is_big_endian = data[start : start + 2] == b"\0\x08"
    plain = EXPLICIT_VR if encoding.explicit else IMPLICIT_VR
    syntax = meta.get(file_meta.TRANSFER_SYNTAX_UID) or (
        EXPLICIT_VR_BIG_ENDIAN if is_big_endian else plain
    )
    encoding = encoding._replace(big_endian=is_big_endian)
    found = {
        SOP_CLASS_UID: meta.get(file_meta.SOP_CLASS_UID, ""),
        SOP_INSTANCE_UID: meta.get(file_meta.SOP_INSTANCE_UID, ""),
    }
    for element in walk(data, start, len(data), encoding):
        if element.tag > SOP_INSTANCE_UID:
            break
        if element.tag in found and element.end - element.start <= LONGEST_UID_BYTES:
            value = data[element.start : element.end].decode("latin-1").rstrip("\0 ")
            if is_uid(value) or not found[element.tag]:
                found[element.tag] = value
    return found[SOP_CLASS_UID], found[SOP_INSTANCE_UID], syntax


def settle_repeats(files: Iterable[GivenFile]) -> list[GivenFile]:
    """Decide between files of one SOP Instance UID in one series, in the order given.

    The same bytes again are a duplicate of the first; of different bytes the last given is scored
    (promise P3), the others are superseded.
    """
    settled: list[GivenFile] = []
    first_of: dict[tuple[tuple[str, str, str], str], int] = {}
    newest: dict[tuple[tuple[str, str, str], str], int] = {}
    for given in files:
        if given.instance is None:
            settled.append(given)
            continue
        bytes_key = (given.series_key, given.instance.digest)
        if bytes_key in first_of:
            original = settled[first_of[bytes_key]].path
            settled.append(
                replace(given, outcome=FileOutcome.DUPLICATE, reason=None, duplicate_of=original)
            )
            continue
        first_of[bytes_key] = len(settled)
        uid_key = (given.series_key, given.instance.sop_uid)
        if given.outcome is None:
            if uid_key in newest:
                older = newest[uid_key]
                settled[older] = replace(
                    settled[older], outcome=FileOutcome.NOT_ASSESSED, reason=Reason.SUPERSEDED
                )
            newest[uid_key] = len(settled)
        settled.append(given)
    return settled


def group_series(files: Iterable[GivenFile]) -> list[GivenSeries]:
    """Group what is to be assessed, series in the order in which they first appear."""
    groups: dict[tuple[str, str, str], list[GivenFile]] = {}
    for given in files:
        if given.outcome is None:
            groups.setdefault(given.series_key, []).append(given)
    return [
        GivenSeries(study_uid, series_uid, tuple(sorted(members, key=_place_in_series)))
        for (_, study_uid, series_uid), members in groups.items()
    ]


def _place_in_series(given: GivenFile) -> tuple[bool, int, str]:
    assert given.header is not None
    assert given.instance is not None
    number = given.header.instance_number
    return number is None, number or 0, given.instance.sop_uid
