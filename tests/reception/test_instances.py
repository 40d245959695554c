"""The spool, without a network."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from tfkt_node.reception import incoming
from tfkt_node.reception.durable import PartialFile
from tfkt_node.reception.file_meta import encode_meta, read_meta
from tfkt_node.reception.incoming import BUFFER_BYTES
from tfkt_node.reception.instances import (
    ReceivedInstance,
    Spool,
    digest_of,
    read_stored,
    refusal,
    write_durably,
)
from tfkt_node.records import (
    CT_IMAGE,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    Misconfigured,
    Reason,
    Refused,
    SetAside,
)

RECEIVED = ReceivedInstance(
    sop_class_uid=CT_IMAGE,
    sop_instance_uid="1.2.3.4.5",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    dataset=b"\x08\x00\x05\x00CS\x00\x00",
    calling_ae="SCANNER",
    received_at=datetime(2026, 1, 2, tzinfo=UTC),
    association_id="a1",
)


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def files_in(spool):
    return [path for path in spool.root.rglob("*") if path.is_file()]


def test_p2_data_set_is_stored_byte_for_byte(spool):
    """P2: after the file meta information come exactly the bytes received, odd ones too."""
    odd = bytes(range(256)) * 3 + b"\x01"

    stored, is_new = spool.store(replace(RECEIVED, dataset=odd))

    content = stored.path.read_bytes()
    _, start = read_meta(stored.path)
    assert is_new
    assert content[start:] == odd
    assert stored.size_bytes == len(content)


def test_file_meta_reads_as_dicom():
    """File meta information is the node's own making and names the sender."""
    meta = pydicom.dcmread(
        io.BytesIO(encode_meta(CT_IMAGE, "1.2.3.4.5", "1.2.840.10008.1.2.1", "SCANNER"))
    ).file_meta

    assert meta.MediaStorageSOPClassUID == CT_IMAGE
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4.5"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "SCANNER"
    assert meta.FileMetaInformationVersion == b"\0\1"


def test_digest_names_uids_and_bytes(spool):
    """The digest is SHA-256 over three UIDs, each ended by NUL, and the data set."""
    text = CT_IMAGE.encode() + b"\x001.2.3.4.5\x001.2.840.10008.1.2.1\x00" + RECEIVED.dataset

    stored, _ = spool.store(RECEIVED)

    assert stored.digest == hashlib.sha256(text).hexdigest()
    assert stored.path == spool.instances / stored.digest[:2] / f"{stored.digest}.dcm"


def test_p3_same_bytes_again_are_no_second_copy(spool):
    """P3: the same instance again is no new file; other bytes under its UID are kept beside it."""
    first, is_new = spool.store(RECEIVED)
    again, is_new_again = spool.store(replace(RECEIVED, calling_ae="OTHER"))
    other, is_new_other = spool.store(replace(RECEIVED, dataset=b"other"))

    assert (is_new, is_new_again, is_new_other) == (True, False, True)
    assert first.path == again.path != other.path
    assert len(files_in(spool)) == 2


def test_p3_same_bytes_on_many_threads_are_new_once(spool):
    """P3: of several threads that store the same bytes at once, one finds them new."""
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: spool.store(RECEIVED)[1], range(32)))

    assert sum(results) == 1
    assert len(files_in(spool)) == 1


@pytest.mark.parametrize("uid", ["", "1.2.3/../../etc", "1" * 65, "1.2.a", "1.2.3\n", "1.2 .3"])
@pytest.mark.parametrize("name", ["sop_class_uid", "sop_instance_uid", "transfer_syntax_uid"])
def test_uid_that_cannot_key_a_store_is_refused(spool, name, uid):
    """A UID with anything but digits and dots is refused, and nothing is kept."""
    with pytest.raises(Refused) as refused:
        spool.store(replace(RECEIVED, **{name: uid}))

    assert refused.value.status == 0xC000
    assert len(str(refused.value)) <= 64
    assert uid == "" or uid not in str(refused.value)
    assert files_in(spool) == []


@pytest.mark.parametrize("limits", [{"reserve_bytes": 1 << 62}, {"maximum_bytes": 3}])
def test_p7_no_room_is_out_of_resources(tmp_path, limits):
    """P7: a disk full up to its reserve, or too large an instance, is 0xA700 and leaves nothing."""
    spool = Spool(tmp_path / "spool", **limits)

    with pytest.raises(Refused) as refused:
        spool.store(RECEIVED)

    assert refused.value.status == 0xA700
    assert len(str(refused.value)) <= 64
    assert files_in(spool) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("which", [1, 2])
def test_p1_failing_sync_is_refused_and_leaves_nothing(spool, monkeypatch, number, which):
    """P1: when either fsync fails, the answer is 0xA700 and no file is under any name."""
    calls = []

    def fsync(fd):
        calls.append(fd)
        if len(calls) == which:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(Refused) as refused:
        spool.store(RECEIVED)

    assert refused.value.status == 0xA700
    assert files_in(spool) == []


def test_refusals_show_no_path():
    """P10: what the sender reads of an OSError holds no path of this machine."""
    for number in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES):
        refused = refusal(OSError(number, os.strerror(number), "/spool/secret"))

        assert refused.status == 0xA700
        assert "/" not in str(refused)
        assert len(str(refused)) <= 64


def test_stored_instance_is_rebuilt_from_its_file(spool):
    """P1: what reception knew is found again in the file; the association is not."""
    stored, _ = spool.store(RECEIVED)
    os.utime(stored.path, (1_700_000_000, 1_700_000_000))

    rebuilt = read_stored(stored.path)

    at = datetime.fromtimestamp(1_700_000_000, UTC)
    assert rebuilt == replace(stored, received_at=at, association_id=None)


def test_digest_can_be_computed_from_the_file(spool):
    """The name of a file proves its content."""
    stored, _ = spool.store(RECEIVED)
    meta, start = read_meta(stored.path)

    computed = digest_of(meta[2], meta[3], meta[0x10], stored.path.read_bytes()[start:])

    assert computed == stored.digest


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DICM", bytes(4000)])
def test_foreign_file_in_the_spool_is_set_aside(tmp_path, content):
    """A file that reception did not write is no instance, and no crash."""
    path = tmp_path / "foreign.dcm"
    path.write_bytes(content)

    with pytest.raises(SetAside) as aside:
        read_stored(path)

    assert aside.value.reason is Reason.UNREADABLE


def test_partial_files_are_swept(spool):
    """What a crash left half-written goes; instances stay."""
    stored, _ = spool.store(RECEIVED)
    (stored.path.parent / ".abc.0123.part").write_bytes(b"half")
    (spool.objects / ".1.2.3.0123.part").write_bytes(b"half")

    swept = spool.sweep_partial_files()

    assert swept == 2
    assert files_in(spool) == [stored.path]
    assert list(spool.stored_files()) == [stored.path]


def test_write_makes_and_syncs_missing_folders(tmp_path, monkeypatch):
    """P1: the name of each new folder is synced into the folder that holds it."""
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))
    )

    write_durably(tmp_path / "a" / "b" / "file", [b"content", b"!"])

    names = [path.removeprefix(str(tmp_path)) for path in synced]
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content!"
    assert names[:2] == ["", "/a"]
    assert names[2].endswith(".part")
    assert names[3:] == ["/a/b"]


@pytest.mark.parametrize("name", ["../x", "A" * 64, "ab"])
def test_paths_are_made_of_digests_only(spool, name):
    """No path is made of what a stranger sends."""
    with pytest.raises(ValueError, match="64 hex digits"):
        spool.path_of(name)
    with pytest.raises(ValueError, match="digits and dots"):
        spool.object_path(f"{name}/")


@pytest.mark.parametrize(("size", "writes"), [(10, 1), (BUFFER_BYTES + 10, 2)])
def test_time_on_the_disk_is_told_from_time_of_writing(spool, monkeypatch, size, writes):
    """Writing a file is writing, whenever it happens; bringing it to the disk is not."""
    now = [0.0]

    def taking(seconds, of):
        def slow(*its):
            now[0] += seconds
            return of(*its)

        return slow

    monkeypatch.setattr(incoming, "monotonic", lambda: now[0])
    monkeypatch.setattr(PartialFile, "write", taking(1.0, PartialFile.write))
    monkeypatch.setattr(PartialFile, "keep_as", taking(10.0, PartialFile.keep_as))
    one = incoming.Incoming(spool, incoming.Announced(CT_IMAGE, "1.2.3", "1.2.3", "SCANNER"))

    one.write(bytes(size))
    one.keep(RECEIVED.received_at)

    assert (one.write_s, one.sync_s) == (writes, 10.0)


def test_kept_instance_is_answered_as_kept(spool, monkeypatch):
    """P1: once file and name are synced, nothing can turn the answer into a failure."""
    real = Path.stat

    def stat(path, **options):
        status = real(path, **options)
        if path.suffix == ".dcm":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return status

    monkeypatch.setattr(Path, "stat", stat)
    stored, is_new = spool.store(RECEIVED)
    monkeypatch.undo()

    assert is_new
    assert stored.size_bytes == stored.path.stat().st_size


def test_second_node_on_a_spool_is_turned_away(spool):
    """Of two nodes on one spool the second is told so, and what the first has open stays."""
    partial = spool.instances / "00" / ".abc.0123.part"
    partial.write_bytes(b"half")
    spool.claim()
    second = Spool(spool.root)

    with pytest.raises(Misconfigured, match=r"another node .* storage\.spool"):
        second.claim()
    stored, _ = second.store(RECEIVED)
    spool.release()
    second.claim()
    second.release()
    second.release()

    assert partial.exists()
    assert list(second.stored_files()) == [stored.path]


@pytest.mark.crash
def test_claim_ends_with_the_process_or_the_spool(spool):
    """A claim outlives neither a kill nor the spool object."""
    program = (
        "import os, sys, pathlib; from tfkt_node.reception.instances import Spool;"
        "Spool(pathlib.Path(sys.argv[1])).claim(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(spool.root)], check=False)

    Spool(spool.root).claim()  # let go of at once
    spool.claim()
    spool.release()

    assert killed.returncode == -9
