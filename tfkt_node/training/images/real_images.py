"""Images that no simulation made: scored by readers, pairs of doses, patients never fitted to."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfkt_node.records import FloatArray, Misconfigured
from tfkt_node.training.images.collection import CleanSlice
from tfkt_node.training.images.slice_files import read_slice

ANCHOR_SCORES = {"0": 0.0, "1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0, "4b": 4.0}
"""Radiologists' means of six test images of LDCTIQAC 2023, by file name."""

STREAKED_ANCHOR = "1"
"""The anchor whose noise is that of "2", and whose streaks cost it one point (seen by eye)."""


SERIES = ("RIDER-Pilot-0109", "LungFCP-01-0001")
"""Whole series of two patients that nothing is ever fitted to; both chests."""

SLICES_PER_SERIES = 4


@dataclass(frozen=True, slots=True)
class Anchor:
    """One scored image; hu: (512, 512)."""

    name: str
    readers: float
    hu: FloatArray


@dataclass(frozen=True, slots=True)
class DosePair:
    """One slice at full and at a quarter of the dose; (512, 512) each."""

    name: str
    full: FloatArray
    quarter: FloatArray


def anchors(data: Path) -> list[Anchor]:
    """Read `data`/anchors. Raises Misconfigured when an image is missing."""
    found = []
    for name, readers in ANCHOR_SCORES.items():
        path = data / "anchors" / f"{name}.tif"
        if not path.is_file():
            raise Misconfigured(f"{path} does not exist: --data must hold the folder anchors")
        found.append(Anchor(name, readers, read_slice(path)))
    return found


def dose_pairs(data: Path) -> list[DosePair]:
    """Read `data`/paired-dose. Raises Misconfigured when its index is missing."""
    index = data / "paired-dose" / "index.csv"
    if not index.is_file():
        raise Misconfigured(f"{index} does not exist: --data must hold the folder paired-dose")
    with index.open(newline="", encoding="utf-8") as file:
        return [
            DosePair(
                row["pair"],
                read_slice(index.parent / row["full"]),
                read_slice(index.parent / row["quarter"]),
            )
            for row in csv.DictReader(file)
        ]


def series_slices(data: Path) -> list[CleanSlice]:
    """Take a few slices of each of SERIES, evenly along it, in the order of their files.

    Raises Misconfigured when a series is not in `data`/series.
    """
    index = data / "series" / "index.csv"
    if not index.is_file():
        raise Misconfigured(f"{index} does not exist: --data must hold the folder series")
    with index.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    found = []
    for name in SERIES:
        own = [row for row in rows if row["file"].startswith(f"{name}/")]
        if not own:
            raise Misconfigured(f"{index} lists no file of {name}")
        inner = np.linspace(0, len(own) - 1, SLICES_PER_SERIES + 2)[1:-1].round().astype(int)
        for row in (own[place] for place in inner):
            pixel_mm = float(row["pixel_mm"].split("\\")[0])
            found.append(CleanSlice(index.parent / row["file"], name, "chest", pixel_mm))
    return found
