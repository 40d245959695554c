"""What peers really send: DCMTK's storescu, and the zoo of odd files."""

from __future__ import annotations

import csv
import os
import subprocess
import time
from collections import defaultdict
from datetime import UTC, datetime
from io import BytesIO

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification

from tests.reception.scu import associate
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.reception.file_meta import read_meta
from tfkt_node.reception.indexing import reconcile
from tfkt_node.records import CT_IMAGE
from tfkt_node.slices.decoding import decodable_syntaxes


def zoo_rows(shared_data):
    with (shared_data / "zoo" / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sendable(path):
    """Return SOP class, SOP instance, transfer syntax and data set; None: not to be sent."""
    content = path.read_bytes()
    if content[128:132] != b"DICM":
        return None
    try:
        meta = pydicom.dcmread(
            path, specific_tags=[], stop_before_pixels=True, force=True
        ).file_meta
        _, start = read_meta(path)
        uids = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID
    except Exception:  # noqa: BLE001 - the zoo is made to break readers; such a file is not sent
        return None
    one = (*map(str, uids), content[start:])
    return one if all(one) else None  # a C-STORE names both UIDs and carries a data set


def send_raw(assoc, sop_class, sop_instance, syntax, dataset):
    """Send the bytes of a data set as they are; return the status, or None for no context."""
    for context in assoc.accepted_contexts:
        if (context.abstract_syntax, context.transfer_syntax[0]) == (sop_class, syntax):
            break
    else:
        return None
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class
    request.AffectedSOPInstanceUID = sop_instance
    request.Priority = 2
    request.DataSet = BytesIO(dataset)
    assoc._reactor_checkpoint.clear()
    while not assoc._is_paused:  # else the library's other thread may take the answer
        time.sleep(0.001)
    assoc.dimse.send_msg(request, context.context_id)
    _, response = assoc.dimse.get_msg(block=True)
    assoc._reactor_checkpoint.set()
    return response.Status


@pytest.mark.station
def test_p2_every_transfer_syntax_is_stored_as_sent(listen, shared_data):
    """P2: in every transfer syntax that is accepted, the file holds the bytes of the wire."""
    listening = listen(decodable=tuple(decodable_syntaxes()))
    files = [
        sendable(shared_data / "zoo" / row["path"])
        for row in zoo_rows(shared_data)
        if row["kind"] == "one-slice"
    ]
    by_syntax = {syntax: (*uids, syntax, dataset) for *uids, syntax, dataset in filter(None, files)}
    contexts = [build_context(one[0], syntax) for syntax, one in by_syntax.items()]

    assoc = associate(listening.port, contexts)
    statuses = {syntax: send_raw(assoc, *one) for syntax, one in by_syntax.items()}
    assoc.release()

    kept = {stored.transfer_syntax_uid: stored.path for stored in listening.stored}
    assert {status for status in statuses.values() if status is not None} == {0x0000}
    assert len(kept) >= 10
    for syntax, path in kept.items():
        assert path.read_bytes()[read_meta(path)[1] :] == by_syntax[syntax][3]


@pytest.mark.station
def test_whole_zoo_is_answered_and_the_node_goes_on(listen, shared_data, caplog, tmp_path):
    """P1, P10: every file that can be sent gets an answer, whatever is in it, and an index row."""
    listening = listen(decodable=tuple(decodable_syntaxes()))
    files = [sendable(shared_data / "zoo" / row["path"]) for row in zoo_rows(shared_data)]
    by_context = defaultdict(list)
    for one in filter(None, files):
        by_context[one[0], one[2]].append(one)
    pairs = [pair for pair in by_context if all(pydicom.uid.UID(uid).is_valid for uid in pair)]

    statuses, to_verification = [], []
    for first in range(0, len(pairs), 100):
        chunk = pairs[first : first + 100]
        assoc = associate(listening.port, [build_context(*pair) for pair in chunk])
        for pair in chunk:
            told = to_verification if pair[0] == Verification else statuses
            told += [send_raw(assoc, *one) for one in by_context[pair]]
        assoc.release()
    echo = associate(listening.port, [build_context(Verification)])
    alive = echo.send_c_echo().Status
    echo.release()
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    upgrade(url)
    store = Store(url)
    counts = reconcile(store, listening.spool, datetime.now(UTC))
    store.close()

    assert len(statuses) > 350
    assert set(statuses) <= {0x0000, 0xC000, None}
    assert set(to_verification) == {0x0122}
    assert alive == 0x0000
    assert not [record for record in caplog.records if record.exc_info]
    assert counts.unreadable == 0
    assert counts.indexed == len(list(listening.spool.stored_files()))


@pytest.mark.peers
@pytest.mark.parametrize("option", ["-xe", "-xi", "-xb", "-xd", "-xs", "-xv", "-xt", "-xr"])
def test_storescu_delivers_in_each_proposal(listen, require_tool, make_ct, tmp_path, option):
    """DCMTK's storescu gets its 0x0000 whatever transfer syntax it proposes first."""
    storescu = require_tool("storescu")
    listening = listen(decodable=tuple(decodable_syntaxes()))
    ds = make_ct(rows=64)
    ds.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(tmp_path / "ct.dcm", enforce_file_format=True)

    sent = subprocess.run(
        [storescu, option, "-aec", "TFKT_NODE", "127.0.0.1", str(listening.port), "ct.dcm"],
        cwd=tmp_path,
        env={**os.environ, "TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert sent.returncode == 0, sent.stderr
    (stored,) = listening.stored
    assert pydicom.dcmread(stored.path).PixelData == ds.PixelData
    assert stored.transfer_syntax_uid != ImplicitVRLittleEndian or option == "-xi"
    assert stored.calling_ae == "STORESCU"
