"""What a large series costs the scoring process: its peak of resident memory, and no more."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest

from tests.slices.ct_images import enhanced
from tfkt_node.records import CT_IMAGE, ENHANCED_CT_IMAGE, InstanceRef, Outcome
from tfkt_node.scorer import Scorer
from tfkt_node.settings import Scoring, Settings
from tfkt_node.slices.decoding import raw_hu, read_dataset

pytestmark = pytest.mark.soak

PEAK_MB = 500
"""Measured: 286 MB for 36 slices, 350 MB for 3,000, 351 MB for 1,200 frames of one object."""


def peak_mb(instances: tuple[InstanceRef, ...]) -> float:
    """Score a revision in a process of its own, and return its high-water mark."""
    peak = 0.0

    def look() -> None:
        nonlocal peak
        for child in multiprocessing.active_children():
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
            if found := re.search(r"VmHWM:\s+(\d+)", status):
                peak = max(peak, int(found[1]) / 1024)

    with Scorer(Settings(scoring=Scoring(streams=1, time_limit_s=7200))) as scorer:
        assert scorer.submit(instances, b"", look).outcome is Outcome.ASSESSED
    return peak


def test_three_thousand_instances_cost_hardly_more_than_thirty_six(shared_data: Path) -> None:
    """Slices are streamed to the engine, not gathered."""
    files = sorted((shared_data / "series" / "RIDER-Pilot-0109").glob("*.dcm"))

    peak = peak_mb(
        tuple(
            InstanceRef(files[number % len(files)], f"{number:064d}", CT_IMAGE, f"1.2.{number}")
            for number in range(3000)
        )
    )

    assert peak < PEAK_MB


def test_object_of_1200_frames_costs_no_more(shared_data: Path, tmp_path: Path) -> None:
    """630 MB of pixels stay in their file, but for the frame in hand."""
    files = sorted((shared_data / "series" / "RIDER-Pilot-0109").glob("*.dcm"))
    frames = [raw_hu(read_dataset(file, pixels=True)).astype(np.int16) for file in files]
    ds = enhanced(
        np.stack([frames[number % len(frames)] for number in range(1200)]),
        [(1, 0)] * 1200,
        [2.5 * number for number in range(1200)],
    )
    path = tmp_path / "large.dcm"
    ds.save_as(path, enforce_file_format=True)

    assert peak_mb((InstanceRef(path, "1", ENHANCED_CT_IMAGE, "1.2.3"),)) < PEAK_MB
