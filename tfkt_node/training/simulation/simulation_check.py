"""The simulated quarter dose beside the true one, on slices that were taken at both.

The quarter dose of `paired-dose` was made by its authors from the scanner's own projections, with
its own bowtie filter, and a tube current that follows the body: it shows how far noise comes that
is made from the slice alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.iqa.scope import find_body
from tfkt_node.records import BoolArray, FloatArray
from tfkt_node.training.images.real_images import dose_pairs
from tfkt_node.training.simulation.low_dose import Kernel, LowDose
from tfkt_node.training.simulation.tissue import field_noise_hu

PIXEL_MM = 0.68
"""Of the pairs, 0.66 and 0.70."""

KERNEL = Kernel.SHARP
"""The nearest to the pairs' D45f."""

_TILE = 32
_RINGS = 16
_NEIGHBOURHOOD = 8.0
"""Pixels: width of the Gaussian in which noise is called local."""

_SOFT_HU = (-150.0, 200.0)


@dataclass(frozen=True, slots=True)
class Compared:
    """One pair. SDs in HU, as `tissue.noise_hu` measures them.

    full: of the full dose. real, simulated: of what a quarter of the dose adds. bias: mean of what
    is added in the simulation, HU. spectrum: largest difference of the two normalised noise power
    spectra over the peak of the real one. maps: correlation of the two maps of local SD.
    real_spread, simulated_spread: 5th and 95th percentile of local SD over its median.
    """

    pair: str
    full: float
    real: float
    simulated: float
    bias: float
    spectrum: float
    maps: float
    real_spread: tuple[float, float]
    simulated_spread: tuple[float, float]


def table(data: Path) -> list[Compared]:
    """Simulate the quarter dose of every pair of `data`/paired-dose, and compare.

    Raises Misconfigured when the folder is missing.
    """
    return [_compared(pair.name, pair.full, pair.quarter) for pair in dose_pairs(data)]


def _compared(name: str, full: FloatArray, quarter: FloatArray) -> Compared:
    base = LowDose(full, pixel_mm=PIXEL_MM, kernel=KERNEL)
    real, simulated = quarter - full, base.inserted(1 / 4, np.random.default_rng(0))
    tissue = _soft_tissue(full)
    real_map, simulated_map = (_local(field)[tissue] for field in (real, simulated))
    real_power, simulated_power = (_spectrum(field, tissue) for field in (real, simulated))
    return Compared(
        pair=name,
        full=base.own_noise_hu,
        real=field_noise_hu(real, base.even),
        simulated=field_noise_hu(simulated, base.even),
        bias=float(simulated[base.even].mean()),
        spectrum=float(np.abs(real_power - simulated_power).max() / real_power.max()),
        maps=float(np.corrcoef(real_map, simulated_map)[0, 1]),
        real_spread=_spread(real_map),
        simulated_spread=_spread(simulated_map),
    )


def _soft_tissue(hu: FloatArray) -> BoolArray:
    """Mark soft tissue and fat of the body, a quarter of a tile from its edge."""
    body = find_body(hu)
    inside = np.kron(body.mask, np.ones((body.block, body.block), bool))
    smooth = ndi.gaussian_filter(hu, 4.0)
    soft = inside & (smooth > _SOFT_HU[0]) & (smooth < _SOFT_HU[1])
    return np.asarray(ndi.binary_erosion(soft, iterations=_TILE // 4), bool)


def _local(field: FloatArray) -> FloatArray:
    """Return the SD of a field without a mean, in the neighbourhood of each pixel."""
    return np.asarray(np.sqrt(ndi.gaussian_filter(field**2, _NEIGHBOURHOOD)), np.float32)


def _spread(local: FloatArray) -> tuple[float, float]:
    low, middle, high = np.quantile(local, (0.05, 0.5, 0.95))
    return float(low / middle), float(high / middle)


def _spectrum(field: FloatArray, tissue: BoolArray) -> FloatArray:
    """Return the radial noise power spectrum of tiles that lie in tissue: it sums to 1.

    The median of the tiles, so that a moving edge in one of them does not count.
    """
    taper = np.hanning(_TILE)
    row, column = np.fft.fftfreq(_TILE), np.fft.rfftfreq(_TILE)
    ring = (np.hypot(row[:, None], column) * 2 * _RINGS).astype(int)
    counts = np.bincount(ring.ravel(), minlength=_RINGS)[:_RINGS]
    found = []
    for top, left in np.ndindex(*(side // (_TILE // 2) - 1 for side in field.shape)):
        at = np.s_[top * _TILE // 2 :, left * _TILE // 2 :]
        inside, values = tissue[at][:_TILE, :_TILE], field[at][:_TILE, :_TILE]
        if inside.mean() > 0.9:
            power = np.abs(np.fft.rfft2((values - values.mean()) * np.outer(taper, taper))) ** 2
            found.append(np.bincount(ring.ravel(), power.ravel(), minlength=_RINGS)[:_RINGS])
    middle = np.median(found, axis=0) / counts
    return np.asarray(middle / middle.sum(), np.float32)
