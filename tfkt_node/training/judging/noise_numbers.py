"""Five numbers of a slice's noise: the input of the plainest models that a network has to beat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.records import FloatArray
from tfkt_node.training import dataset
from tfkt_node.training.simulation.label import BAND_PX, REACH_PX, around, bands
from tfkt_node.training.simulation.tissue import MIN_EVEN_PIXELS, even_tissue, noise_hu
from tfkt_node.training.track import Track

FILE = "noise-numbers.npy"
NAMES = ("SD", "second difference", *(f"band of {width:g} px" for width in BAND_PX))

_SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Blind to straight edges; leaves the SD of white noise as it is (Immerkaer, Computer Vision and
Image Understanding 1996)."""

_BOX = 9
_QUANTILE = 0.3


def noise_numbers(hu: FloatArray) -> Float64Array:
    """Measure a slice's noise by size, (len(NAMES),): log2 of HU.

    hu: (rows, columns), HU. The noise as `tissue.noise_hu` measures it; then the second difference
    and the bands of size that the label uses, of each a low quantile of the local strength in even
    tissue, since anatomy only adds. NaN where too little even tissue is seen.
    """
    even = even_tissue(hu)
    if even.sum() < MIN_EVEN_PIXELS:
        return np.full(len(NAMES), np.nan)
    sd = noise_hu(hu, even)
    window = around(even, REACH_PX)
    hu, even = np.clip(hu[window], -300, 500).astype(np.float32), even[window]
    fields = [ndi.convolve(hu, _SECOND_DIFFERENCE), *bands(hu)]
    powers = [np.quantile(ndi.uniform_filter(f * f, _BOX)[even], _QUANTILE) for f in fields]
    return np.asarray(np.log2(np.clip([sd, *np.sqrt(np.maximum(powers, 0))], 0.1, None)))


def all_noise_numbers(work: Path, workers: int, track: Track) -> Float64Array:
    """Measure every version in `work`, (n, 5); kept there for the next run."""
    path = work / FILE
    count = len(dataset.load(work).rows)
    if path.is_file():
        kept: Float64Array = np.load(path)
        if len(kept) == count:
            return kept
    numbers = dataset.each(work, range(count), workers, _open)
    found = np.stack(list(track(numbers, count, "Noise numbers")))
    unfinished = path.with_suffix(".part.npy")
    np.save(unfinished, found)
    unfinished.replace(path)
    return found


def _open() -> Callable[[FloatArray], Float64Array]:
    return noise_numbers
