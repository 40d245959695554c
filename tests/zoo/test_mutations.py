"""Files that were changed on their way: a reason or the right values, and never anything else."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.zoo.mutations import BAD_UIDS, Mutation, Subject, mutations
from tfkt_node.cli import intake
from tfkt_node.reception.headers import read_header
from tfkt_node.reception.instances import ReceivedInstance, Spool
from tfkt_node.records import CT_CLASSES, CT_IMAGE, Refused, SetAside
from tfkt_node.slices.decoding import decode_hu, read_dataset
from tfkt_node.slices.geometry import slices_of
from tfkt_node.slices.stacking import stacks
from tfkt_node.slices.structure import file_meta_end

pytestmark = pytest.mark.station

REAL_FILES = (
    "made/ok-explicit.dcm",
    "made/ok-implicit.dcm",
    "made/ok-bigendian.dcm",
    "made/rle-good.dcm",
    "made/enhanced-3.dcm",
    "one-slice/nema-ct1/CT1_JLSL",
    "one-slice/nema-ct1/CT1_JPLL",
    "one-slice/nema-ct1/CT1_J2KR",
    "one-slice/ctimage/CTImage.dcm_JPEGXLLosslessTransferSyntax_1.2.840.10008.1.2.4.110.dcm",
    "pydicom/CT_small.dcm",
)

HU_BY_HEADER = {
    0x00020010: "Transfer Syntax UID",
    0x00080016: "SOP Class UID",
    0x00200032: "Image Position, which orders the frames",
    0x00200037: "Image Orientation",
    0x00280008: "Number of Frames",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "Bits Allocated",
    0x00280101: "Bits Stored",
    0x00280102: "High Bit",
    0x00280103: "Pixel Representation",
    0x00280120: "Pixel Padding Value",
    0x00280121: "Pixel Padding Range Limit",
    0x00281052: "Rescale Intercept",
    0x00281053: "Rescale Slope",
    0x7FE00010: "Pixel Data",
}
"""What the HU are made of. DICOM has no second copy and no checksum of these: another intercept is
another image, and nobody can tell. Every other change must leave the HU alone, or be found."""


def outcome_of(path: Path, scratch: Path) -> list[np.ndarray] | str:
    """What `score` makes of a file before the model sees it: HU of its slices in order, or why not.

    The header is read as reception does: that never fails, whatever the content.
    """
    one = intake.read_file(path, scratch)
    if one.instance is None or one.instance.sop_class_uid not in CT_CLASSES:
        return str(one.reason)
    read_header(one.instance.path)
    try:
        ds = read_dataset(one.instance.path, pixels=True)
        placed = stacks(slices_of(one.instance, ds))
        return [decode_hu(ds, one.frame) for stack in placed for one in stack.slices]
    except SetAside as error:
        return str(error.reason)


@pytest.mark.parametrize("name", REAL_FILES)
@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_changed_file_gives_its_values_or_a_reason(
    name: str, shared_data: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """P6: no crash, no traceback, no file elsewhere, and no HU but those of the file as it was."""
    folder = tmp_path / "work"
    for part in ("scratch", "given"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    original = shared_data / "zoo" / name
    expected = outcome_of(original, folder / "scratch")
    assert isinstance(expected, list)
    mutation = data.draw(mutations(Subject.of(original.read_bytes())), "mutation")
    changed = folder / "given" / "changed.dcm"
    changed.write_bytes(mutation.content)

    found = outcome_of(changed, folder / "scratch")

    assert {"scratch", "given"} == {path.name for path in folder.iterdir()}
    assert {folder} == set(tmp_path.iterdir())
    if isinstance(found, list) and not same(expected, found):
        assert may_change_values(mutation), mutation.what


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_changed_deflated_file_gives_a_reason_where_it_is_cut(
    shared_data: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """P6: a deflated data set has no checksum either, but its end is known: no half of it is taken.

    A changed byte may change what follows in any way; it ends in HU or a reason all the same.
    """
    whole = (shared_data / "zoo" / "made" / "ok-deflated.dcm").read_bytes()
    start, _ = file_meta_end(whole)
    at = data.draw(st.integers(start, len(whole) - 2), "place")
    value = data.draw(st.integers(-1, 255), "value, or -1 for the end")
    (tmp_path / "changed.dcm").write_bytes(
        whole[:at] + (bytes([value]) + whole[at + 1 :] if value >= 0 else b"")
    )

    found = outcome_of(tmp_path / "changed.dcm", tmp_path)

    assert isinstance(found, str) or all(np.isfinite(hu).all() for hu in found)
    if value == -1:
        assert isinstance(found, str)


def same(expected: list[np.ndarray], found: list[np.ndarray]) -> bool:
    return len(expected) == len(found) and all(map(np.array_equal, expected, found))


def may_change_values(mutation: Mutation) -> bool:
    return bool(mutation.touched & set(HU_BY_HEADER))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uid=st.one_of(
        st.sampled_from(BAD_UIDS),
        st.text(max_size=80),
        st.text("0123456789./\\~\0 ", max_size=80),
    )
)
def test_no_uid_makes_a_file_outside_the_spool(tmp_path: Path, uid: str) -> None:
    """Names are digests: whatever a UID holds, it is refused or lies where all others lie."""
    spool = Spool(tmp_path / "spool")
    received = ReceivedInstance(
        sop_class_uid=CT_IMAGE,
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        dataset=uid.encode("utf-8", "surrogatepass"),
        calling_ae="SCANNER",
        received_at=datetime.now(UTC),
    )

    try:
        stored, _ = spool.store(received)
    except Refused:
        assert not uid or set(uid) - set("0123456789.") or len(uid) > 64
    else:
        assert stored.path.parent.parent == spool.instances
        assert hashlib.sha256(stored.path.name.encode()).hexdigest()  # a plain name
    assert Counter(["spool"]) == Counter(path.name for path in tmp_path.iterdir())
