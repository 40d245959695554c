"""The supervised scoring process: what a crash, a hang and a hungry decoder may cost."""

from __future__ import annotations

import multiprocessing
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from tests.slices.ct_images import ct
from tfkt_node.records import CT_IMAGE, InstanceRef, InstanceState, Outcome, Reason
from tfkt_node.scorer import Scorer, ScorerUnavailable, ScoringFailed, _InHand, _Patience
from tfkt_node.settings import Limits, Scoring, Settings
from tfkt_node.slices.codecs import RLE_LOSSLESS

pytestmark = pytest.mark.station


@pytest.fixture
def instances(shared_data: Path) -> tuple[InstanceRef, ...]:
    files = sorted((shared_data / "series" / "LungFCP-01-0001").glob("*.dcm"))
    return tuple(InstanceRef(file, file.name, CT_IMAGE, f"1.2.{i}") for i, file in enumerate(files))


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    with Scorer(Settings()) as scorer:
        yield scorer


def kill_the_child() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def test_scores_a_series_in_a_child(scorer: Scorer, instances: tuple[InstanceRef, ...]) -> None:
    """P4: a revision that the child scores is ASSESSED, with an outcome for each instance."""
    assessment = scorer.submit(instances, b"")

    assert Outcome.ASSESSED is assessment.outcome
    assert [ref.digest for ref in instances] == [one.digest for one in assessment.instances]


def test_crash_costs_one_attempt(scorer: Scorer, instances: tuple[InstanceRef, ...]) -> None:
    """P7: a child that dies costs the attempt; the next one runs in a new child."""
    with pytest.raises(ScoringFailed) as failure:
        scorer.submit(instances, b"", while_waiting=kill_the_child)

    assert Reason.SCORER_CRASHED is failure.value.reason
    assert "SIGKILL" in failure.value.detail
    assert Outcome.ASSESSED is scorer.submit(instances, b"").outcome


def test_hang_is_ended_at_the_time_limit(instances: tuple[InstanceRef, ...]) -> None:
    """P4: an attempt ends at its time limit, and the child with it."""
    settings = Settings(scoring=Scoring(time_limit_s=0.1))

    with Scorer(settings) as scorer, pytest.raises(ScoringFailed) as failure:
        scorer.submit(instances, b"")

    assert Reason.SCORER_TIMEOUT is failure.value.reason
    assert [] == multiprocessing.active_children()


def test_memory_limit_is_said(tmp_path: Path) -> None:
    """P6: a frame larger than the memory limit gives a reason, not a score, and the child lives."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    ds = pydicom.Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CT_IMAGE, "1.2.3", "CT"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 46000, 46000, 16, 16, 15
    ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 1, 1, 0
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    ds.PixelSpacing = [0.01, 0.01]
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path / "huge.dcm"
    ds.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:  # PixelData of 4.2 GB that takes no room on the disk
        file.write(b"\xe0\x7f\x10\x00OW\x00\x00" + (2 * 46000**2).to_bytes(4, "little"))
        file.truncate(file.tell() + 2 * 46000**2)

    with Scorer(Settings(scoring=Scoring(memory_limit_mb=4096))) as scorer:
        try:
            outcome = str(scorer.submit((InstanceRef(path, "d", CT_IMAGE, "1.2.3"),), b"").reason)
        except ScoringFailed as failure:
            outcome = failure.detail

    assert "memory" in outcome.lower() or outcome in {"UNREADABLE", "UNDECODABLE", "MATRIX"}


def test_model_that_cannot_be_loaded_is_no_fault_of_the_revision(tmp_path: Path) -> None:
    """P7: the cure is said, and no attempt is counted for it."""
    settings = Settings(scoring=Scoring(bundle=str(tmp_path / "none")))

    with Scorer(settings) as scorer, pytest.raises(ScorerUnavailable, match=r"scoring\.bundle"):
        scorer.submit((), b"")


# --------------------------------------------------------------------------- a poisoned instance


@pytest.fixture
def poison(tmp_path: Path, instances: tuple[InstanceRef, ...]) -> Callable[[str], InstanceRef]:
    """An instance whose reading ends or holds the child: its file is a pipe that nobody feeds."""

    def make(name: str) -> InstanceRef:
        path = tmp_path / name
        os.mkfifo(path)
        return replace(instances[0], path=path, digest=name, sop_uid="1.3")

    return make


def test_instance_that_hangs_costs_itself_only(
    instances: tuple[InstanceRef, ...], poison: Callable[[str], InstanceRef]
) -> None:
    """P4: it is left out after its second time, the rest is scored, and later ones do not wait."""
    settings = Settings(scoring=Scoring(read_time_limit_s=5.0, streams=1))
    series = (*instances[:8], poison("hangs"))

    with Scorer(settings) as scorer:
        found = scorer.submit(series, b"")
        child = multiprocessing.active_children()
        again = scorer.submit(series, b"")
        assert child == multiprocessing.active_children()  # nothing had to be ended again

    states = {one.digest: (one.state, one.reason) for one in found.instances}
    assert states.pop("hangs") == (InstanceState.NOT_ASSESSED, Reason.UNDECODABLE)
    assert set(states.values()) == {(InstanceState.SCORED, None)}
    assert (found.outcome, again.outcome) == (Outcome.ASSESSED, Outcome.ASSESSED)


def test_slow_object_is_named_before_the_whole_series_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P4: frames that are each quick enough, and too many: half the time is for one instance."""
    in_hand = _InHand(multiprocessing.get_context("spawn"))
    now = 0.0
    monkeypatch.setattr("tfkt_node.scorer.time.monotonic", lambda: now)
    patience = _Patience(in_hand, limit_s=120.0, budget_s=450.0)
    said = []

    for frame in range(200):
        in_hand("quick" if frame % 2 else "slow")
        now += 1.0 if frame % 2 else 5.0
        said.append((in_hand.digest, patience.ends()))
        in_hand("")

    blamed = {digest for digest, why in said if why}
    assert {"slow"} == blamed
    assert "" == said[178][1] != said[180][1]


@pytest.mark.parametrize("kept", [True, False])
def test_lack_of_memory_costs_the_instance_that_met_it(
    instances: tuple[InstanceRef, ...], tmp_path: Path, kept: bool
) -> None:
    """P4: no final reason at the first time, for memory may have been short; not the series."""
    ds = ct(np.zeros((1, 1), np.int16), Rows=46000, Columns=46000)
    ds.file_meta.TransferSyntaxUID = RLE_LOSSLESS
    ds.PixelData = encapsulate([struct.pack("<16L", 2, 64, 64, *[0] * 13)])
    path = tmp_path / "hungry.dcm"
    ds.save_as(path, enforce_file_format=True)
    hungry = InstanceRef(path, "hungry", CT_IMAGE, "1.2.3")
    limits = Limits(decoded_mb=8192)
    memory = Scoring(memory_limit_mb=4096, streams=1)

    with Scorer(Settings(scoring=memory, limits=limits)) as scorer:
        found = scorer.submit((*instances[:8], *([hungry] if kept else [])), b"")

    states = {one.digest: one.reason for one in found.instances}
    assert (Reason.UNDECODABLE if kept else None) is states.pop("hungry", None)
    assert set(states.values()) == {None}


def test_instance_that_ends_the_child_costs_itself_only(
    instances: tuple[InstanceRef, ...], poison: Callable[[str], InstanceRef]
) -> None:
    """P4: whatever kills the process while one file is read, the series has its outcome."""
    settings = Settings(scoring=Scoring(streams=1))

    with Scorer(settings) as scorer:

        def kill_at_the_pipe() -> None:
            if scorer._in_hand.digest == "kills":
                kill_the_child()

        found = scorer.submit((*instances[:8], poison("kills")), b"", kill_at_the_pipe)

    states = {one.digest: one.reason for one in found.instances}
    assert states.pop("kills") is Reason.UNDECODABLE
    assert set(states.values()) == {None}
