"""Images that no simulation made: scored by readers, or taken in pairs of full and quarter dose."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfkt_node.records import FloatArray, Misconfigured
from tfkt_node.training.collection import read_png

ANCHOR_SCORES = {"0": 0.0, "1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0, "4b": 4.0}
"""Radiologists' means of six test images of LDCTIQAC 2023, by file name."""

STREAKED_ANCHOR = "1"
"""The anchor whose noise is that of "2", and whose streaks cost it one point (seen by eye)."""


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
    from skimage.io import imread

    found = []
    for name, readers in ANCHOR_SCORES.items():
        path = data / "anchors" / f"{name}.tif"
        if not path.is_file():
            raise Misconfigured(f"{path} does not exist: --data must hold the folder anchors")
        # The challenge stores the window -1000..400 HU as 0..1.
        hu = 1400 * np.asarray(imread(path), np.float32) - 1000
        found.append(Anchor(name, readers, hu))
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
                read_png(index.parent / row["full"]),
                read_png(index.parent / row["quarter"]),
            )
            for row in csv.DictReader(file)
        ]
