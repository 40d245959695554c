"""Files given: each is brought to one statement, whatever it holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.cli.conftest import ct, save
from tfkt_node.cli.intake import (
    FileOutcome,
    GivenFile,
    Refusal,
    find_files,
    group_series,
    read_file,
    settle_repeats,
)
from tfkt_node.records import Reason

MR = "1.2.840.10008.5.1.4.1.1.4"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
DICOMDIR = "1.2.840.10008.1.3.10"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def read_all(paths: list[Path], scratch: Path) -> list[GivenFile]:
    return settle_repeats(read_file(path, scratch) for path in find_files(paths))


def test_a_ct_image_waits_for_its_assessment(tmp_path: Path, scratch: Path) -> None:
    """A CT instance has no outcome yet, and belongs to the series its header names."""
    one = read_file(save(ct(3), tmp_path / "a"), scratch)

    assert one.outcome is None
    assert ("P1", "2.25.1", "2.25.2") == one.series_key
    assert one.instance is not None
    assert ("2.25.10003", tmp_path / "a") == (one.instance.sop_uid, one.instance.path)


def not_dicom() -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"# Not DICOM\n" * 40,
        "zeros": bytes(5000),
        "one byte": b"D",
        "DICM alone": b"DICM",
    }


@pytest.mark.parametrize("name", not_dicom())
def test_what_is_not_dicom_is_refused(tmp_path: Path, scratch: Path, name: str) -> None:
    """A file that is no DICOM is refused, and says so."""
    path = tmp_path / "file"
    path.write_bytes(not_dicom()[name])

    one = read_file(path, scratch)

    assert (FileOutcome.REFUSED, Refusal.NOT_DICOM) == (one.outcome, one.reason)


@pytest.mark.parametrize("uid", ["", "1.2.x", "../../etc/"])
def test_uids_that_key_no_store_are_refused(tmp_path: Path, scratch: Path, uid: str) -> None:
    """An instance without a usable SOP Instance UID is refused."""
    path = save(ct(), tmp_path / "a")
    path.write_bytes(path.read_bytes().replace(b"2.25.10001", uid.encode().ljust(10, b"\0")))

    one = read_file(path, scratch)

    assert (FileOutcome.REFUSED, Refusal.INVALID_UID) == (one.outcome, one.reason)


def test_a_dicomdir_is_refused(tmp_path: Path, scratch: Path) -> None:
    """A DICOM directory is named as one."""
    one = read_file(save(ct(SOPClassUID=DICOMDIR), tmp_path / "DICOMDIR"), scratch)

    assert (FileOutcome.REFUSED, Refusal.DICOMDIR) == (one.outcome, one.reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"SOPClassUID": MR}, Reason.NOT_CT),
        (
            {"SOPClassUID": COMPREHENSIVE_SR, "Manufacturer": "tfkt-node"},
            Reason.OWN_OBJECT,
        ),
    ],
)
def test_other_instances_are_set_aside(
    tmp_path: Path, scratch: Path, change: dict[str, str], reason: Reason
) -> None:
    """Instances of other classes, and the node's own objects, are set aside."""
    one = read_file(save(ct(**change), tmp_path / "a"), scratch)

    assert (FileOutcome.SET_ASIDE, reason) == (one.outcome, one.reason)


def test_special_files_are_not_opened(tmp_path: Path, scratch: Path) -> None:
    """A pipe is refused without waiting for what may never come; a broken link is refused."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    read = read_all([tmp_path / "pipe", tmp_path / "link"], scratch)

    assert [Refusal.NOT_A_FILE, Refusal.CANNOT_OPEN] == [one.reason for one in read]


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_bare_data_set_is_read_like_its_file(
    tmp_path: Path, scratch: Path, implicit: bool, little: bool
) -> None:
    """Without preamble and file meta information an instance is the same instance."""
    _write_bare(ct(), tmp_path / "bare", implicit, little)

    one = read_file(tmp_path / "bare", scratch)

    assert one.outcome is None
    assert one.instance is not None
    assert "2.25.10001" == one.instance.sop_uid
    assert ("P1", "2.25.1", "2.25.2") == one.series_key
    assert scratch == one.instance.path.parent


def _write_bare(ds: Dataset, path: Path, implicit: bool, little: bool) -> None:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, little
    write_dataset(buffer, ds)
    path.write_bytes(buffer.getvalue())


def test_a_lost_preamble_is_repaired(tmp_path: Path, scratch: Path) -> None:
    """A Part 10 file without its 128 bytes of preamble is the instance that it would be with it."""
    whole = save(ct(), tmp_path / "whole")
    (tmp_path / "cut").write_bytes(whole.read_bytes()[128:])

    read = read_all([whole, tmp_path / "cut"], scratch)

    assert [None, FileOutcome.DUPLICATE] == [one.outcome for one in read]


@pytest.mark.parametrize("meta_is_implicit", [True, False])
@pytest.mark.parametrize("is_implicit", [True, False])
def test_a_lost_preamble_and_prefix_are_repaired(
    tmp_path: Path, scratch: Path, meta_is_implicit: bool, is_implicit: bool
) -> None:
    """A file that begins with its file meta information, whatever VRs are written."""
    syntax = "1.2.840.10008.1.2" if is_implicit else "1.2.840.10008.1.2.1"
    meta, buffer = Dataset(), DicomBytesIO()
    meta.add_new(0x00020002, "UI", "1.2.840.10008.5.1.4.1.1.2")
    meta.add_new(0x00020003, "UI", "2.25.10001")
    meta.add_new(0x00020010, "UI", syntax)
    for part, implicit in ((meta, meta_is_implicit), (ct(), is_implicit)):
        buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
        write_dataset(buffer, part)
    (tmp_path / "bare").write_bytes(buffer.getvalue())

    one = read_file(tmp_path / "bare", scratch)

    assert one.outcome is None
    assert ("P1", "2.25.1", "2.25.2") == one.series_key
    assert scratch == one.instance.path.parent  # type: ignore[union-attr]


def test_the_same_bytes_are_a_duplicate(tmp_path: Path, scratch: Path) -> None:
    """The same instance under a second name is a duplicate of the first, even if set aside."""
    for folder, number, change in (("a", 1, {}), ("b", 1, {}), ("c", 2, {"SOPClassUID": MR}),
                                   ("d", 2, {"SOPClassUID": MR})):  # fmt: skip
        save(ct(number, **change), tmp_path / folder)

    a, b, c, d = read_all([tmp_path / name for name in "abcd"], scratch)

    assert [None, FileOutcome.DUPLICATE] == [a.outcome, b.outcome]
    assert [FileOutcome.SET_ASIDE, FileOutcome.DUPLICATE] == [c.outcome, d.outcome]
    assert [a.path, c.path] == [b.duplicate_of, d.duplicate_of]


def test_of_other_bytes_the_last_given_counts(tmp_path: Path, scratch: Path) -> None:
    """P3: the same UID with other bytes: the last given is scored, the others are superseded."""
    for name, description in (("a", "first"), ("b", "second"), ("c", "third")):
        save(ct(1, SeriesDescription=description), tmp_path / name)

    read = read_all([tmp_path / name for name in "abc"], scratch)

    assert [FileOutcome.NOT_ASSESSED, FileOutcome.NOT_ASSESSED, None] == [
        one.outcome for one in read
    ]
    assert [Reason.SUPERSEDED, Reason.SUPERSEDED, None] == [one.reason for one in read]


def test_a_superseded_version_given_again_changes_nothing(tmp_path: Path, scratch: Path) -> None:
    """The first version again, after the second, is a duplicate and does not win."""
    for name, description in (("a", "first"), ("b", "second"), ("c", "first")):
        save(ct(1, SeriesDescription=description), tmp_path / name)

    read = read_all([tmp_path / name for name in "abc"], scratch)

    assert [Reason.SUPERSEDED, None, None] == [one.reason for one in read]
    assert [FileOutcome.NOT_ASSESSED, None, FileOutcome.DUPLICATE] == [one.outcome for one in read]


def test_two_patients_under_one_uid_are_two_series(tmp_path: Path, scratch: Path) -> None:
    """Series are keyed by patient, study and series: nothing of two patients is mixed."""
    save(ct(1), tmp_path / "a")
    save(ct(1, PatientID="P2"), tmp_path / "b")

    series = group_series(read_all([tmp_path / "a", tmp_path / "b"], scratch))

    assert [1, 1] == [len(one.files) for one in series]


def test_instances_are_in_order(tmp_path: Path, scratch: Path) -> None:
    """Instances of a series go by instance number, then UID, those without a number last."""
    for number, uid in ((3, "2.25.2"), (1, "2.25.3"), (2, "2.25.1"), (2, "2.25.4")):
        save(ct(number, SOPInstanceUID=uid), tmp_path / uid)
    save(ct(4, SOPInstanceUID="2.25.0", InstanceNumber=None), tmp_path / "0")

    (series,) = group_series(read_all([tmp_path], scratch))

    assert ["2.25.3", "2.25.1", "2.25.4", "2.25.2", "2.25.0"] == [
        ref.sop_uid for ref in series.instances
    ]


def test_every_path_is_listed_once(tmp_path: Path) -> None:
    """A file given by name and again by its folder is listed once, hidden files are listed too."""
    for name in ("b/2", "b/.hidden", "a", "b/c/1"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = tmp_path / "in"

    found = list(find_files([folder / "b" / "2", folder, folder / "b" / "." / "2"]))

    assert [folder / name for name in ("b/2", "a", "b/.hidden", "b/c/1")] == found


@given(head=st.binary(max_size=300), cut=st.integers(0, 2000), at=st.integers(0, 1500))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_come_to_a_statement(
    tmp_path: Path, scratch: Path, head: bytes, cut: int, at: int
) -> None:
    """P6: bytes of any kind, and a CT file damaged anywhere, are read without an error."""
    whole = save(ct(), tmp_path / "whole").read_bytes()
    damaged = tmp_path / "damaged"

    for content in (head, bytes(128) + b"DICM" + head, whole[:at] + head + whole[at + cut :]):
        damaged.write_bytes(content)
        one = read_file(damaged, scratch)
        assert (one.outcome is None) == (one.reason is None)
