"""Measure physics beside the score: what a physicist would ask first of a slice.

Numbers with units in their names; None where a slice does not allow the measurement. They explain
a score and never change it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from tfkt_node.iqa.scope import Body, cell_means
from tfkt_node.records import FloatArray

SOFT_TISSUE_HU = (0.0, 150.0)
"""Muscle and organs, contrast medium included."""
WINDOW_MM = 6.0
LEAST_PIXELS = 2000
"""Fewer pixels in even soft tissue give no mode worth the name."""

BIN = 0.02
"""Width of a bin of ln(SD): 2 %."""
SMOOTHING_BINS = 3.0

Measures = dict[str, float | None]


def measure(hu: FloatArray, body: Body, spacing_mm: tuple[float, float] | None) -> Measures:
    """Measure one slice. hu: (rows, columns) float32, HU; body: of the same slice.

    All None where the pixel spacing is not known.
    """
    if spacing_mm is None:
        return {"noise_hu": None, "noise_coarse_ratio": None, "water_equivalent_diameter_mm": None}
    noise, coarse = noise_hu(hu, body, spacing_mm)
    return {
        "noise_hu": noise,
        "noise_coarse_ratio": coarse,
        "water_equivalent_diameter_mm": water_equivalent_diameter_mm(body, spacing_mm),
    }


def noise_hu(
    hu: FloatArray, body: Body, spacing_mm: tuple[float, float]
) -> tuple[float | None, float | None]:
    """Measure the global noise level, and how coarse the noise is.

    Level: mode of the standard deviations in windows of about 6 mm that lie in soft tissue, HU.
    Coarseness: median over these windows of the SD of 4 x 4 pixel means over the SD of pixels, 0 to
    1; about 0.2 for white noise, higher for smooth kernels, iterative reconstruction and anatomy.
    Both None under 2,000 pixels of soft tissue.
    Lower noise is less noise, not better: smoothing lowers it too. The mode keeps out vessels and
    edges; texture of organs adds to values under about 8 HU.
    Source: Christianson et al., AJR 2015;205:W80 (tissue mask, histogram of local SDs, mode).
    """
    cell_mm = body.block * math.sqrt(spacing_mm[0] * spacing_mm[1])
    cells = max(2, round(WINDOW_MM / cell_mm))
    low, high = SOFT_TISSUE_HU
    soft = body.mask & (body.means > low) & (body.means < high)
    # One cell of distance to all else keeps half-filled cells out.
    soft = ndimage.binary_erosion(soft)
    if min(soft.shape) < cells:
        return None, None
    even = sliding_window_view(soft, (cells, cells)).all(axis=(2, 3))
    if even.sum() * body.block**2 < LEAST_PIXELS:
        return None, None
    means = sliding_window_view(body.means, (cells, cells))[even].astype(np.float64)
    squares = sliding_window_view(cell_means(np.square(hu), body.block), (cells, cells))[even]
    deviation = np.sqrt(np.maximum(squares.mean(axis=(1, 2)) - means.mean(axis=(1, 2)) ** 2, 1e-4))
    return _mode(deviation), float(np.median(means.std(axis=(1, 2)) / deviation))


def water_equivalent_diameter_mm(body: Body, spacing_mm: tuple[float, float]) -> float | None:
    """Return the diameter of a cylinder of water that attenuates as the body does, mm.

    D_w = 2 sqrt(A_w / pi), A_w = sum over the body of (HU / 1000 + 1) x pixel area. A body cut by
    the field of view gives a lower bound. Larger bodies need more dose for the same noise. None
    without a body. Source: AAPM Report 220 (2014), equation 4.
    """
    if body.outline is None:
        return None
    area_mm2 = spacing_mm[0] * spacing_mm[1] * body.block**2
    water = float(np.sum(body.means[body.mask] / 1000.0 + 1.0, dtype=np.float64)) * area_mm2
    return 2.0 * math.sqrt(max(water, 0.0) / math.pi)


def _mode(deviation: FloatArray) -> float:
    """Mode over logarithmic bins, so that low and high noise are resolved alike."""
    bins = np.floor(np.log(deviation) / BIN).astype(int)
    first = int(bins.min())
    counts = np.bincount(bins - first).astype(float)
    smooth = ndimage.gaussian_filter1d(np.pad(counts, 10), SMOOTHING_BINS, mode="constant")
    return math.exp((int(smooth.argmax()) - 10 + first + 0.5) * BIN)
