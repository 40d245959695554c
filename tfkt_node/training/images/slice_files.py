"""Slices on disk as Hounsfield units, in whichever of three formats they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfkt_node.records import FloatArray
from tfkt_node.training.images.collection import read_png

CHALLENGE_HU = (-1000.0, 400.0)
"""LDCTIQAC 2023 stores this window as 0..1."""


def read_slice(path: Path) -> FloatArray:
    """Read a slice, (rows, columns) float32 HU, by the suffix of its file.

    .png: HU + 1024, of ct-clean and paired-dose. .tif: 0..1, of the challenge. .dcm: DICOM, one
    frame; raises SetAside when it has no sure HU.
    """
    if path.suffix == ".png":
        return read_png(path)
    if path.suffix == ".tif":
        from skimage.io import imread

        low, high = CHALLENGE_HU
        return (high - low) * np.asarray(imread(path), np.float32) + np.float32(low)
    from tfkt_node.slices import decoding

    return decoding.decode_hu(decoding.read_dataset(path, pixels=True))
