"""Each kind of owed object is made, the picture with the pixels that the spool still has."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from tests.report import samples
from tests.report.validators import of_real_series
from tfkt_node import making
from tfkt_node.making import make
from tfkt_node.reception.instances import Spool
from tfkt_node.records import ClaimedObject, ObjectKind, Permanent, ReportRecord
from tfkt_node.settings import Limits, Report, Scoring, Settings

pytestmark = pytest.mark.station

CLASSES = {
    ObjectKind.SR: "1.2.840.10008.5.1.4.1.1.88.33",
    ObjectKind.ENHANCED_SR: "1.2.840.10008.5.1.4.1.1.88.22",
    ObjectKind.KOS: "1.2.840.10008.5.1.4.1.1.88.59",
    ObjectKind.PICTURE: "1.2.840.10008.5.1.4.1.1.7",
}


SetZone = Callable[[str], None]


@pytest.fixture
def local_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetZone]:
    """Set the zone of this process, which is the machine's."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def made(kind: ObjectKind, record: ReportRecord, spool: Spool) -> bytes:
    found = make(ClaimedObject(1, kind, record), Settings(), spool)
    assert (kind, CLASSES[kind]) == (found.kind, found.sop_class_uid)
    return found.content


def test_each_kind_is_an_object_of_its_own(tmp_path: Path) -> None:
    """P5: four kinds of one verdict have four UIDs, in four series."""
    record, spool = samples.record_of(samples.flagged_assessment()), Spool(tmp_path)

    headers = [samples.read(made(kind, record, spool)) for kind in ObjectKind]

    assert len(ObjectKind) == len({ds.SOPInstanceUID for ds in headers})
    assert len(ObjectKind) == len({ds.SeriesInstanceUID for ds in headers})
    assert len(ObjectKind) == len({(ds.SOPClassUID, ds.SeriesNumber) for ds in headers})


@pytest.mark.parametrize("kind", ObjectKind)
@pytest.mark.parametrize(
    ("named", "machine", "hour"),
    [
        ("Europe/Berlin", "America/New_York", "20260305 233015"),
        ("", "America/New_York", "20260305 173015"),
        ("", "UTC", "20260305 223015"),
    ],
)
def test_study_without_a_zone_gets_local_times(
    kind: ObjectKind, named: str, machine: str, hour: str, tmp_path: Path, local_zone: SetZone
) -> None:
    """A PACS takes a time without an offset for a local one, as the images' own are."""
    local_zone(machine)
    record = samples.record_of(samples.flagged_assessment())

    found = make(
        ClaimedObject(1, kind, record), Settings(report=Report(timezone=named)), Spool(tmp_path)
    )

    ds = samples.read(found.content)
    assert hour == f"{ds.SeriesDate} {ds.SeriesTime}"
    assert hour == f"{ds.InstanceCreationDate} {ds.InstanceCreationTime}"
    assert "TimezoneOffsetFromUTC" not in ds


def test_zone_of_the_study_goes_before_the_setting(tmp_path: Path) -> None:
    """What the images state is stated, and its times are in it."""
    attributes = samples.patient(TimezoneOffsetFromUTC="+0900")
    record = samples.record_of(samples.flagged_assessment(), attributes)
    claimed = ClaimedObject(1, ObjectKind.SR, record)

    ds = samples.read(
        make(claimed, Settings(report=Report(timezone="Europe/Berlin")), Spool(tmp_path)).content
    )

    assert ("+0900", "20260306", "073015") == (
        ds.TimezoneOffsetFromUTC, ds.ContentDate, ds.ContentTime,
    )  # fmt: skip


def test_object_whose_file_was_lost_is_made_anew_as_the_same_bytes(tmp_path: Path) -> None:
    """P5: under one UID there is one object, for each destination and for ever."""
    record, spool = samples.record_of(samples.flagged_assessment()), Spool(tmp_path)
    first = make(ClaimedObject(1, ObjectKind.SR, record), Settings(), spool)
    lost = ClaimedObject(1, ObjectKind.SR, record, hashlib.sha256(first.content).hexdigest())

    assert first == make(lost, Settings(), spool)
    with pytest.raises(Permanent, match="not what it was") as raised:
        make(lost, Settings(report=Report(worst_slices=1)), spool)
    assert "restore its file from the backup" in raised.value.cure

    restored = spool.object_path(first.sop_instance_uid)
    restored.parent.mkdir(parents=True, exist_ok=True)
    restored.write_bytes(first.content)
    assert first == make(lost, Settings(report=Report(worst_slices=1)), spool)


@pytest.fixture
def worst(tmp_path: Path, shared_data: Path) -> tuple[ReportRecord, Spool, Path]:
    """The record of a real series, and a spool with the file of its worst slice."""
    folder, spool = shared_data / "series" / "LungFCP-01-0001", Spool(tmp_path)
    record = of_real_series(folder)
    minimum = record.assessment.stacks[0].minimum
    assert minimum is not None
    path = spool.path_of(minimum.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(sorted(folder.glob("*.dcm"))[0], path)
    return record, spool, path


def shows_a_slice(picture: bytes) -> bool:
    corner = samples.read(picture).pixel_array[680:1000, 60:390]
    return bool(corner.std() > 30)


def test_picture_shows_the_worst_slice_as_long_as_the_spool_has_it(
    worst: tuple[ReportRecord, Spool, Path],
) -> None:
    """The slice is read from its file; a file that is gone or broken costs the slice only."""
    record, spool, path = worst

    whole = made(ObjectKind.PICTURE, record, spool)
    path.write_bytes(b"no DICOM")
    broken = made(ObjectKind.PICTURE, record, spool)
    path.unlink()
    gone = made(ObjectKind.PICTURE, record, spool)

    assert shows_a_slice(whole)
    assert not shows_a_slice(gone)
    assert gone == broken


def crash(*_: object) -> None:
    """What a decoder may do to its process."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(*_: object) -> None:
    """What a decoder may do as well."""
    time.sleep(600)


@pytest.mark.parametrize("decode", [crash, hang])
def test_decoder_that_ends_or_hangs_costs_the_slice_only(
    worst: tuple[ReportRecord, Spool, Path],
    decode: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P7: reception lives in the process that makes the picture."""
    record, spool, _ = worst
    monkeypatch.setattr(making, "_decode", decode)
    limit = Settings(scoring=Scoring(read_time_limit_s=120 if decode is crash else 0.1))

    found = make(ClaimedObject(1, ObjectKind.PICTURE, record), limit, spool)

    assert not shows_a_slice(found.content)
    assert [] == multiprocessing.active_children()


def test_limits_of_the_settings_hold_for_the_picture(
    worst: tuple[ReportRecord, Spool, Path],
) -> None:
    """A file that goes beyond a limit is not opened, as it would not have been scored."""
    record, spool, path = worst
    ds, item = dcmread(path), Dataset()
    item.ReferencedStudySequence = [Dataset()]
    ds.RequestAttributesSequence = [item]
    ds.save_as(path)
    claimed = ClaimedObject(1, ObjectKind.PICTURE, record)

    shown = [
        shows_a_slice(make(claimed, Settings(limits=Limits(nesting=nesting)), spool).content)
        for nesting in (2, 1)
    ]

    assert [True, False] == shown
