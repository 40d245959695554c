"""Parallel-beam projection and filtered back-projection as one exact pair.

Both ways go through the Fourier slice theorem: the 2-D transform of a slice, read along polar
lines, is the 1-D transform of its projections. Reading (and, transposed, spreading) is a sparse
matrix with a Kaiser-Bessel window four samples wide on a grid twice as fine as the slice.
Source: Fessler & Sutton, IEEE TSP 2003, doi 10.1109/TSP.2002.807005.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse
import scipy.special

from tfkt_node.records import FloatArray

VIEWS = 720
"""Views over half a turn: one a quarter degree, as fine as a clinical scanner's."""

SOURCE_MM = 595.0
"""From the X-ray source to the axis of the gantry, as in common scanners (541 to 610 mm)."""

_WIDTH = 4
_BETA = float(np.pi * np.sqrt((_WIDTH / 2) ** 2 * 1.5**2 - 0.8))


class Geometry(StrEnum):
    """How the rays of one view lie: parallel over half a turn, or a fan over a full one."""

    PARALLEL = "parallel"
    FAN = "fan"


class ParallelBeam:
    """Project square slices of `size` pixels and bring projections back.

    The detector has `bins` = 2 * size elements as wide as a pixel, centred on pixel
    (size / 2, size / 2). Making one for 512 pixels takes seconds and 50 MB; use `parallel_beam`.
    """

    def __init__(self, size: int, views: int = VIEWS) -> None:
        self.size = size
        self.views = views
        self.bins = 2 * size
        self._polar = _polar_reading(self.bins, views)
        offset = np.arange(-size // 2, size // 2) / self.bins
        window = _window_transform(offset)
        self._flat = (1.0 / np.outer(window, window)).astype(np.float32)
        self._ramp = _ramp(self.bins)

    def project(self, image: npt.NDArray[np.floating]) -> FloatArray:
        """Sum an image along each ray.

        image: (size, size), any unit. Returns (views, bins) float32, unit times pixels.
        """
        grid = np.zeros((self.bins, self.bins), np.float32)
        half = self.size // 2
        rolled = np.roll(np.arange(self.bins), half)[: self.size]
        grid[np.ix_(rolled, rolled)] = np.asarray(image, np.float32) * self._flat
        lines = self._polar @ _real_pairs(scipy.fft.fft2(grid))
        spectrum = _complex(lines).reshape(self.views, self.size + 1)
        sums = scipy.fft.irfft(spectrum, n=self.bins, axis=1)
        return np.asarray(scipy.fft.fftshift(sums, axes=1), np.float32)

    def back_project(
        self,
        sums: FloatArray,
        kernel: npt.NDArray[np.floating],
        weight: FloatArray | None = None,
    ) -> FloatArray:
        """Reconstruct by filtered back-projection.

        sums: (views, bins). kernel: (size + 1,), what is left of each frequency 0..0.5 per pixel
        beside the ramp. weight: (views, bins) or (views, 1), how much each ray counts once it is
        filtered; all alike where None. Returns (size, size) float32, in the unit that was
        projected.
        """
        spectrum = scipy.fft.rfft(scipy.fft.ifftshift(sums, axes=1), axis=1)
        spectrum *= self._ramp * np.asarray(kernel, np.float32)
        if weight is not None:
            filtered = scipy.fft.irfft(spectrum, n=self.bins, axis=1)
            filtered *= scipy.fft.ifftshift(weight, axes=1)
            spectrum = scipy.fft.rfft(filtered, axis=1)
        # Only half of each line is kept; the mirrored half doubles all but both ends.
        spectrum[:, 1:-1] *= 2
        grid = _complex(self._polar.T @ _real_pairs(spectrum))
        image = scipy.fft.ifft2(grid.reshape(self.bins, self.bins), norm="forward").real
        half = self.size // 2
        rolled = np.roll(np.arange(self.bins), half)[: self.size]
        scale = np.pi / (self.views * self.bins)
        return np.asarray(image[np.ix_(rolled, rolled)] * self._flat * scale, np.float32)

    def kept_rays(
        self, views: int, geometry: Geometry, *, phase: float, pixel_mm: float
    ) -> FloatArray:
        """Say how much each ray counts in a scan of only `views` evenly spaced views.

        views: 1 to half of the projector's, over half a turn (PARALLEL) or a full one (FAN). phase:
        0..1, where between two views the first one is. Returns (views, bins) or (views, 1): 0 where
        a ray is not measured, 1 on average over the rays at any distance from the centre.

        A kept view is shared between the two angles of the projector that it lies between: the
        gantry of a scanner, too, turns while a view is read. In a fan the ray at distance s of
        parallel angle t leaves the source at t - asin(s / R), or runs the other way from
        t + pi + asin(s / R): views are curves in these coordinates (Kak & Slaney, section 3.4).
        """
        if not 1 <= views <= self.views // 2:
            raise ValueError(f"views must lie in 1..{self.views // 2}, got {views}")
        angle = np.arange(self.views)[:, None]
        if geometry is Geometry.PARALLEL:
            every = self.views / views
            shares = every * _near_multiples(angle - phase * every, every)
        else:
            every = 2 * self.views / views
            across = np.arange(-self.size, self.size)[None] * pixel_mm / SOURCE_MM
            fan = np.arcsin(np.clip(across, -1, 1)) * self.views / np.pi
            there = _near_multiples(angle - fan - phase * every, every)
            back = _near_multiples(angle + self.views + fan - phase * every, every)
            shares = every * (there + back) / 2
        return np.asarray(shares, np.float32)

    def frequencies(self) -> npt.NDArray[np.float64]:
        """Return the (size + 1,) radial frequencies of a kernel, in cycles per pixel."""
        return np.arange(self.size + 1) / self.bins


@lru_cache(maxsize=2)
def parallel_beam(size: int) -> ParallelBeam:
    """Return the projector for slices of this size, made once in a process."""
    return ParallelBeam(size)


def _near_multiples(place: npt.NDArray[np.floating], every: float) -> npt.NDArray[np.float64]:
    """Return 1 at multiples of `every`, falling to 0 at a distance of 1."""
    distance = np.abs(np.mod(place + every / 2, every) - every / 2)
    return np.asarray(np.clip(1 - distance, 0, None), np.float64)


def _ramp(bins: int) -> FloatArray:
    """Transform the ramp sampled in space: right at frequency 0, unlike a sampled |f|.

    Source: Kak & Slaney, Principles of Computerized Tomographic Imaging, eq. 3.61.
    """
    taps = np.zeros(bins)
    taps[0] = 0.25
    odd = np.arange(1, bins // 2, 2)
    taps[odd] = taps[-odd] = -1.0 / (np.pi * odd) ** 2
    return np.asarray(np.fft.rfft(taps).real, np.float32)


def _polar_reading(bins: int, views: int) -> scipy.sparse.csr_matrix:
    """Build the matrix that reads (views * (bins / 2 + 1)) points off a (bins * bins) grid."""
    angle = np.pi * np.arange(views) / views
    radius = np.arange(bins // 2 + 1)
    column = np.outer(np.cos(angle), radius).ravel()
    row = np.outer(np.sin(angle), radius).ravel()
    row_at, row_weight = _window(row, bins)
    column_at, column_weight = _window(column, bins)
    indices = (row_at[:, :, None] * bins + column_at[:, None, :]).reshape(len(row), -1)
    weights = (row_weight[:, :, None] * column_weight[:, None, :]).reshape(len(row), -1)
    starts = np.arange(len(row) + 1, dtype=np.int32) * _WIDTH**2
    return scipy.sparse.csr_matrix(
        (weights.ravel(), indices.ravel(), starts), shape=(len(row), bins * bins)
    )


def _window(place: npt.NDArray[np.float64], bins: int) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Return the grid lines around each place, wrapped, and their Kaiser-Bessel weights."""
    first = np.floor(place).astype(np.int32) - (_WIDTH // 2 - 1)
    lines = first[:, None] + np.arange(_WIDTH, dtype=np.int32)
    reach = 2 * (place[:, None] - lines) / _WIDTH
    inside = np.sqrt(np.clip(1 - reach**2, 0, None))
    weight = scipy.special.i0(_BETA * inside) / scipy.special.i0(_BETA)
    return np.mod(lines, bins, dtype=np.int32), np.asarray(weight, np.float32)


def _window_transform(offset: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Transform the Kaiser-Bessel window at `offset` cycles per grid line."""
    root = np.sqrt(_BETA**2 - (np.pi * _WIDTH * offset) ** 2)
    return np.asarray(_WIDTH * np.sinh(root) / (root * scipy.special.i0(_BETA)))


def _real_pairs(values: npt.NDArray[np.complexfloating]) -> FloatArray:
    """View complex values as (n, 2) reals: a real matrix times them stays real and small."""
    return np.ascontiguousarray(values.ravel(), np.complex64).view(np.float32).reshape(-1, 2)


def _complex(pairs: FloatArray) -> npt.NDArray[np.complex64]:
    return np.ascontiguousarray(pairs, np.float32).view(np.complex64).ravel()
