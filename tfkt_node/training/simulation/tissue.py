"""Where a slice holds even soft tissue, and how noisy it is there."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.iqa.scope import find_body
from tfkt_node.records import BoolArray, FloatArray

MIN_EVEN_PIXELS = 800
"""Fewer pixels than this say nothing sure about noise."""

_SOFT_HU = (-20.0, 160.0)
_EVENEST_SHARE = 0.5
_BOX = 9
_QUANTILE = 0.3
"""Of the local SDs: anatomy only adds to noise, so the lower part tells more. With 0.3 the result
agrees with the mode of the histogram (Christianson et al., AJR 2015) within 15 %."""


def whole_body(hu: FloatArray, margin_px: int = 4) -> BoolArray:
    """Mark the body at full size, table left out, and so many pixels around it.

    The coarse cells of `scope.find_body` that the skin cuts are the body's too: hence a margin.
    """
    body = find_body(hu)
    mask = np.kron(body.mask, np.ones((body.block, body.block), bool))
    near = np.zeros(hu.shape, bool)
    near[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(ndi.binary_dilation(near, iterations=margin_px), bool)


def even_tissue(hu: FloatArray) -> BoolArray:
    """Mark soft tissue away from edges.

    hu: (rows, columns) float32, HU, the least noisy version of the slice at hand. The half of
    the soft tissue with the smallest gradient is kept. Returns the same shape.
    """
    smooth = ndi.gaussian_filter(np.clip(hu, -300, 300), 4.0)
    soft = ndi.binary_erosion((smooth > _SOFT_HU[0]) & (smooth < _SOFT_HU[1]), iterations=_BOX // 2)
    if not soft.any():
        return np.asarray(soft, bool)
    slope = np.hypot(ndi.sobel(smooth, 0), ndi.sobel(smooth, 1))
    return np.asarray(soft & (slope <= np.quantile(slope[soft], _EVENEST_SHARE)), bool)


def local_sd(hu: FloatArray) -> FloatArray:
    """Return the standard deviation in the 9 x 9 pixels around each pixel, HU."""
    values = np.asarray(hu, np.float64)
    mean = ndi.uniform_filter(values, _BOX)
    return np.asarray(
        np.sqrt(np.clip(ndi.uniform_filter(values**2, _BOX) - mean**2, 0, None)), np.float32
    )


def noise_hu(hu: FloatArray, even: BoolArray) -> float:
    """Measure the noise of a slice: a low quantile of the local SD inside even tissue, HU.

    hu, even: (rows, columns). NaN where `even` holds under MIN_EVEN_PIXELS. Anatomy adds a
    little: below about 8 HU the result is an upper bound.
    """
    return field_noise_hu(np.clip(hu, -300, 500), even)


def field_noise_hu(field: FloatArray, even: BoolArray) -> float:
    """Measure a field of noise alone, without anatomy, exactly as `noise_hu` measures a slice.

    About 12 % less than its SD in all: noise coarser than the box, and uneven, counts less.
    """
    if int(even.sum()) < MIN_EVEN_PIXELS:
        return float("nan")
    return float(np.quantile(local_sd(field)[even], _QUANTILE))
