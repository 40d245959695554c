"""A child-size body from an adult's slice: no real child is in the data.

The body is shrunk in geometry before anything is projected, then sampled on the finer grid of a
child's field of view. That is not a child's anatomy (a child is no small adult), only the path
that X-rays take through one, and the scale of structures against the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from tfkt_node.iqa.scope import find_body
from tfkt_node.records import FloatArray
from tfkt_node.training.simulation.tissue import even_tissue, noise_hu

AIR_HU = -1000.0

PIXEL_MM = (0.4, 0.6)
"""Pixel sizes of a child's field of view in a 512 matrix: 205 to 307 mm."""

SCALES = (0.35, 0.7)
"""Sensible sizes of a child over an adult's: from a newborn to school age."""

_ROOM = 1.1
"""Field of view over the widest extent of the body."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child-size body. hu: (size, size), HU. own_noise_hu: what is left of the adult's noise.

    Shrinking averages the adult's noise, and what is left has not a child's grain: `LowDose(hu,
    pixel_mm=pixel_mm, own_noise_hu=own_noise_hu).noise_of(sd, rng)` is noise of a child's scan.
    """

    hu: FloatArray
    pixel_mm: float
    scale: float
    own_noise_hu: float


def child(
    hu: FloatArray, pixel_mm: float, scale: float, pixel_child_mm: float | None = None
) -> Child:
    """Shrink the body of an adult's slice and sample it in a child's field of view.

    hu: (size, size), HU, with pixels of pixel_mm. scale: of the child to the adult, as in SCALES.
    pixel_child_mm: when None, within PIXEL_MM so that the body fills the slice; a body that the
    adult's field of view cuts is cut alike, whatever pixels that takes. The body is centred; each
    pixel is the average over its area, so that the adult's noise falls where pixels grow coarser.
    own_noise_hu of the result is the lower of what `tissue.noise_hu` measures before and after:
    averaging adds no noise, but anatomy that shrinks below the 9 pixels of the measurement looks
    like it. Raises ValueError when no body is found.
    """
    top, bottom, left, right = _frame(hu)
    if pixel_child_mm is None:
        whole = bottom - top == hu.shape[0]
        extent_mm = max(bottom - top, right - left) * pixel_mm * scale
        fitting = np.clip(_ROOM * extent_mm / hu.shape[0], *PIXEL_MM)
        pixel_child_mm = scale * pixel_mm if whole else float(fitting)
    step = pixel_child_mm / (scale * pixel_mm)
    above_air = hu - AIR_HU
    for axis, middle in enumerate(((top + bottom) / 2, (left + right) / 2)):
        edges = middle + step * (np.arange(hu.shape[axis] + 1) - hu.shape[axis] / 2)
        above_air = _averaged(above_air, edges, axis)
    small = np.clip(above_air + AIR_HU, hu.min(), hu.max()).astype(np.float32)
    own = np.fmin(noise_hu(hu, even_tissue(hu)), noise_hu(small, even_tissue(small)))
    return Child(small, pixel_child_mm, scale, float(own))


def _averaged(values: FloatArray, edges: npt.NDArray[np.float64], axis: int) -> FloatArray:
    """Average between neighbouring edges, in pixels from the first one's outer edge; 0 outside.

    The running sum is interpolated, so that nothing is lost or counted twice at any step.
    """
    so_far = np.cumsum(np.insert(values, 0, 0, axis=axis), axis=axis, dtype=np.float64)
    inside = np.clip(edges, 0, values.shape[axis])
    sums = CubicSpline(np.arange(values.shape[axis] + 1), so_far, axis=axis)(inside)
    return np.asarray(np.diff(sums, axis=axis) / (edges[1] - edges[0]), np.float32)


def _frame(hu: FloatArray) -> tuple[int, int, int, int]:
    """Return the box around the body, (top, bottom, left, right) in pixels; all if it is cut."""
    body = find_body(hu)
    if body.outline is None:
        raise ValueError("no body is found in the slice")
    left, top, right, bottom = body.outline
    # The mask loses up to a cell at its edge.
    room = min(left, top, hu.shape[1] - right, hu.shape[0] - bottom)
    if room <= body.block:
        return 0, hu.shape[0], 0, hu.shape[1]
    return top, bottom, left, right
