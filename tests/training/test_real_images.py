"""Real images are read in Hounsfield units, whatever their format."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.records import Misconfigured
from tfkt_node.training.images.real_images import SERIES, anchors, dose_pairs, series_slices
from tfkt_node.training.images.slice_files import read_slice

pytestmark = pytest.mark.station


def fat(hu: np.ndarray) -> float:
    """The commonest value about that of fat once noise is blurred away, HU."""
    counts, edges = np.histogram(ndi.gaussian_filter(hu, 2), bins=np.arange(-160, -20, 10))
    return float(edges[counts.argmax()])


def test_three_formats_give_the_same_scale(shared_data, require_module):
    """Air and fat lie where they should in a TIFF, a PNG and a DICOM file."""
    require_module("skimage")
    slices = [
        anchors(shared_data)[4].hu,
        dose_pairs(shared_data)[0].full,
        read_slice(series_slices(shared_data)[0].path),
    ]

    for hu in slices:
        assert (hu.shape, hu.dtype) == ((512, 512), np.float32)
        assert hu.min() < -900
        assert -130 <= fat(hu) <= -50


def test_a_few_slices_of_each_series_are_taken(shared_data):
    """Four of each, evenly along it, with the pixel size of their headers."""
    found = series_slices(shared_data)

    assert [one.patient for one in found] == [name for name in SERIES for _ in range(4)]
    assert len({one.path for one in found}) == 8
    assert all(0.5 < one.pixel_mm < 1 for one in found)


def test_missing_series_are_named(tmp_path):
    """The folder that is lacking is in the message."""
    with pytest.raises(Misconfigured, match="must hold the folder series"):
        series_slices(tmp_path)
