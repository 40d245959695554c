"""Measure physics beside the score: what a physicist would ask first of a slice.

Numbers with units in their names; None where a slice does not allow the measurement. They explain
a score and never change it; a score that they contradict is a finding of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce

import numpy as np
from scipy import ndimage

from tfkt_node.iqa.scope import Body, cell_means
from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.records import BoolArray, FloatArray, SliceGeometry

SOFT_TISSUE_HU = (0.0, 150.0)
"""Muscle and organs, contrast medium included."""
WINDOW_MM = 6.0
HEAVY_NOISE_HU = 120.0
"""Median SD of the cells of a body from which their means leave SOFT_TISSUE_HU by chance."""
LEAST_PIXELS = 2000
"""Fewer pixels of soft tissue, or of air, give no number worth the name."""

BIN = 0.02
"""Width of a bin of ln(SD): 2 %."""
SMOOTHING_BINS = 3.0

GRAIN_MM = 0.7
"""Pixels for which the grain of noise is told; two and more smaller ones are averaged, so that a
child's small field of view does not make noise look smoothed."""
WHITE_FINE_TO_COARSE = 2.19
"""Of white noise, before it is set to 1: twice, and the skewness of medians over few pixels."""

AIR_BELOW_HU = -900.0
AIR_CELLS_AWAY = 3
"""From the body and from the edge of the field of view."""
LEAST_AIR_SD_HU = 0.5
"""Less is no air: scanners write one value where they cut off."""

SSDE_FACTORS = {320.0: (3.704369, 0.03671937), 160.0: (1.874799, 0.03871313)}
"""Diameter of the CTDI phantom in mm -> a, b of the factor a exp(-b D_w), D_w in cm."""
SSDE_DIAMETER_MM = (80.0, 450.0)
"""Where the factors were fitted."""

NOISE_AT_4_HU = 24.0
MOST_APART = 2.0
"""Points between a score and what the noise alone would give it: two verdicts, a factor of 4 in
dose."""
COARSEST = 0.3
"""Fine-to-coarse ratio below every kernel seen (the softest, B20f: 0.33): smoothed afterwards."""

Measures = dict[str, float | None]


def measure(hu: FloatArray, body: Body, where: SliceGeometry) -> Measures:
    """Measure one slice. hu: (rows, columns) float32, HU; body: of the same slice.

    The same names for every slice; only the dose is known where the pixel spacing is not.
    """
    spacing_mm, dose = where.pixel_spacing_mm, where.ctdi_vol_mgy
    noise = grain = streaks = diameter = None
    if spacing_mm is not None:
        noise = noise_hu(body, spacing_mm)
        diameter = water_equivalent_diameter_mm(body, spacing_mm)
        if noise is not None:
            grain = noise_fine_to_coarse(hu, body, spacing_mm)
            streaks = streak_index(body, noise, spacing_mm)
    return {
        "noise_hu": noise,
        "noise_fine_to_coarse": grain,
        "streak_index": streaks,
        "water_equivalent_diameter_mm": diameter,
        "ctdi_vol_mgy": dose,
        "ssde_mgy": ssde_mgy(dose, where.ctdi_phantom_mm, diameter),
    }


def contradict(score: float, measures: Mapping[str, float | None]) -> bool:
    """Say whether the noise measured does not fit a score, 0..4.

    Either the score lies more than MOST_APART from 4 - 2 log2(noise / 24 HU), cut to 0..4: noise
    alone neither allows nor explains it. Or the noise is coarser than COARSEST: smoothed after
    reconstruction, which lowers noise and may have bought the score.
    False where there is too little soft tissue to measure noise.
    """
    noise, ratio = measures.get("noise_hu"), measures.get("noise_fine_to_coarse")
    if noise is None:
        return False
    by_noise = min(max(4 - 2 * math.log2(max(noise, 0.1) / NOISE_AT_4_HU), 0.0), 4.0)
    return abs(score - by_noise) > MOST_APART or (ratio is not None and ratio < COARSEST)


# --------------------------------------------------------------------------- noise


def noise_hu(body: Body, spacing_mm: tuple[float, float]) -> float | None:
    """Measure the global noise level, HU: mode of the SD in windows of 6 mm inside soft tissue.

    None under 2,000 pixels of it. Lower noise is less noise, not better: smoothing lowers it too.
    The mode keeps out vessels and edges; texture of organs adds to values under about 8 HU.
    Source: Christianson et al., AJR 2015;205:W80 (tissue mask, histogram of local SDs, mode).
    """
    deviations = _deviations(body, _soft_tissue(body), spacing_mm)
    return None if deviations is None else _mode(deviations)


def noise_fine_to_coarse(
    hu: FloatArray, body: Body, spacing_mm: tuple[float, float]
) -> float | None:
    """Measure how fine the noise of soft tissue is: 1 for white noise, less for coarser.

    SD of pixels about the means of 2 x 2, over SD of these about the means of 4 x 4 (medians), in
    units of white noise. Pixels are taken together to about GRAIN_MM, never divided. About 0.7 for
    medium kernels, 0.5 for soft ones. None under 2,000 pixels.
    """
    together = max(1, round(GRAIN_MM / math.sqrt(spacing_mm[0] * spacing_mm[1])))
    soft = _soft_tissue(body)
    pixels = hu if together == 1 else cell_means(hu, together)
    two = cell_means(pixels, 2)
    four = cell_means(two, 2)
    # Where the cells of 4 x 4 lie in the body's own grid, which is another for other matrices.
    rows, columns = (
        np.minimum((4 * np.arange(length) + 2) * together // body.block, most - 1)
        for length, most in zip(four.shape, soft.shape, strict=True)
    )
    even = soft[np.ix_(rows, columns)]
    if 16 * even.sum() < LEAST_PIXELS:
        return None
    of_two = cell_means(np.square(two), 2)
    fine = float(np.median((cell_means(np.square(pixels), 4) - of_two)[even]))
    coarse = float(np.median((of_two - np.square(four))[even]))
    return math.sqrt(max(fine, 0.0) / coarse) / WHITE_FINE_TO_COARSE if coarse > 0 else None


def streak_index(body: Body, noise: float, spacing_mm: tuple[float, float]) -> float | None:
    """Measure streaks: SD in the air beside the body over the noise in soft tissue, `noise_hu`.

    Median over windows as large as those of the noise. Noise of photons is strongest in the middle
    of a body, streaks (missing views, metal, starved rays) reach out into the air: about 0.5 with
    few of them, over 1 with many. None where a scanner wrote one value into the air, or where the
    body leaves under 2,000 pixels of it.
    """
    near = ndimage.binary_dilation(body.mask, iterations=AIR_CELLS_AWAY)
    y, x = np.ogrid[: near.shape[0], : near.shape[1]]
    radius = np.hypot(y - (near.shape[0] - 1) / 2, x - (near.shape[1] - 1) / 2)
    inside = radius < min(near.shape) / 2 - AIR_CELLS_AWAY
    air = inside & ~near & (body.means < AIR_BELOW_HU)
    deviations = _deviations(body, air, spacing_mm)
    deviation = 0.0 if deviations is None else float(np.median(deviations))
    return deviation / noise if deviation >= LEAST_AIR_SD_HU else None


def _deviations(
    body: Body, where: BoolArray, spacing_mm: tuple[float, float]
) -> Float64Array | None:
    """Return the SD in each window of 6 mm that lies in `where`; None for too few of them."""
    cell_mm = body.block * math.sqrt(spacing_mm[0] * spacing_mm[1])
    cells = max(2, round(WINDOW_MM / cell_mm))
    if min(where.shape) < cells:
        return None
    even = _window_means(where, cells) == 1
    if even.sum() * body.block**2 < LEAST_PIXELS:
        return None
    squares = _window_means(body.squares, cells)
    variance = (squares - np.square(_window_means(body.means, cells)))[even]
    pixels = (cells * body.block) ** 2
    deviations: Float64Array = np.sqrt(np.maximum(variance * pixels / (pixels - 1), 1e-4))
    return deviations


def _soft_tissue(body: Body) -> BoolArray:
    """Mark cells of soft tissue, one cell away from all else: half-filled cells stay out.

    In heavy noise the means of single cells tell no tissue; those over 3 x 3 of them do.
    """
    low, high = SOFT_TISSUE_HU
    means, squares = body.means[body.mask], body.squares[body.mask]
    heavy = means.size and np.median(squares - np.square(means)) > HEAVY_NOISE_HU**2
    means = ndimage.uniform_filter(body.means, 3) if heavy else body.means
    soft = body.mask & (means > low) & (means < high)
    return np.asarray(ndimage.binary_erosion(soft), bool)


def _window_means(cells: FloatArray | BoolArray, size: int) -> Float64Array:
    """Average over all windows of size x size cells; exact where all cells are 0 or 1."""
    wide = np.asarray(cells, np.float64)
    rows, columns = (length - size + 1 for length in wide.shape)
    down = reduce(np.add, (wide[at : at + rows] for at in range(size)))
    total: Float64Array = reduce(np.add, (down[:, at : at + columns] for at in range(size)))
    return total / size**2


def _mode(deviation: Float64Array) -> float:
    """Mode over logarithmic bins, so that low and high noise are resolved alike."""
    bins = np.floor(np.log(deviation) / BIN).astype(int)
    first = int(bins.min())
    counts = np.bincount(bins - first).astype(float)
    smooth = ndimage.gaussian_filter1d(np.pad(counts, 10), SMOOTHING_BINS, mode="constant")
    return math.exp((int(smooth.argmax()) - 10 + first + 0.5) * BIN)


# --------------------------------------------------------------------------- size and dose


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


def ssde_mgy(
    ctdi_vol_mgy: float | None, phantom_mm: float | None, diameter_mm: float | None
) -> float | None:
    """Return the size-specific dose estimate, mGy: CTDIvol x a exp(-b D_w).

    phantom_mm: diameter of the phantom that CTDIvol is given for. diameter_mm: water-equivalent.
    None where one of them is not known, or outside the fit. A body cut by the field of view gives
    an upper bound. Source: AAPM Reports 204 (2011) and 220 (2014).
    """
    low, high = SSDE_DIAMETER_MM
    if ctdi_vol_mgy is None or phantom_mm not in SSDE_FACTORS or diameter_mm is None:
        return None
    if not low <= diameter_mm <= high:
        return None
    a, b = SSDE_FACTORS[phantom_mm]
    return ctdi_vol_mgy * a * math.exp(-b * diameter_mm / 10)
