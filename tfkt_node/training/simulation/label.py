"""The label: what quality u a slice has, when all that was done to it is known.

u is open at both ends and falls by one point with each halving of the dose; 4 is where readers of
LDCTIQAC 2023 stop asking for more. Noise and streaks are measured in three bands of size, in
pixels (neither the network nor the challenge images know millimetres), added as power into one
sigma, and

    u = 4 - 2 log2(sigma / SIGMA_AT_4)

Smoothing never gains: a smoothed slice has the u of its noisy source less what detail it lost.
Two constants are set on six images that readers scored: SIGMA_AT_4 and STREAK_WEIGHT.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.iqa.physics import NOISE_AT_4_HU
from tfkt_node.iqa.uncertainty import U_ENDS
from tfkt_node.records import BoolArray, FloatArray

SIGMA_AT_4 = NOISE_AT_4_HU
"""HU of noise, as of a standard kernel, at which readers give 4."""

STREAK_WEIGHT = 2.0**0.5
"""A streak counts as noise this many times its SD: one point less at equal SD."""

BAND_PX = (1.0, 2.0, 4.0)
"""Widths of the bands: differences of Gaussians with this sigma and half of it, each double the
last."""

BAND_SHARE = (0.6, 0.35, 0.05)
"""How much each band counts."""

STANDARD_RESPONSE = (0.550, 0.284, 0.117)
"""SD in each band of noise from the standard kernel that `tissue.noise_hu` measures as 1: medians
over 14 simulated slices."""

REACH_PX = round(4 * BAND_PX[-1])
"""Pixels further away leave the bands of a pixel as they are."""

PLACE_PX = 33
"""Side of the square over which noise and streaks make up the quality of one place."""

BLOB_HU = (60.0, 40.0, 25.0)
"""Height of the blobs that measure what smoothing takes away, per band."""

LOSS_POINTS = 1.5
"""Points that smoothing costs when nothing is left of any blob. Noise can be read through; what a
filter took is gone."""

U_RANGE = U_ENDS
"""Where the score reaches 0 and 4."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a version of a slice; HU, as of a standard kernel.

    own: noise of the slice before anything was done. inserted: simulated noise. streaks: of
    missing views. transfer: what smoothing left of blobs in each band, 1 where none was done.
    """

    own: float
    inserted: float = 0.0
    streaks: float = 0.0
    transfer: tuple[float, ...] = (1.0, 1.0, 1.0)


def band_sigma(field: FloatArray, even: BoolArray, beside: float, weight: float = 1.0) -> float:
    """Sum a noise or streak field up over the bands, inside even tissue.

    field: (rows, columns), HU, without anatomy; `even` must hold some pixels. beside: the noise
    that is there as well. weight: how many times its SD the field counts. Returns the noise, as
    `tissue.noise_hu` measures it, that the standard kernel would need to weigh as much: coarse
    grain weighs more than its SD, fine grain less. Places count by their quality, not by their
    power: bad streaks in one corner leave the rest readable.
    """
    window = around(even, REACH_PX + PLACE_PX // 2)
    field, even = field[window], even[window]
    power = np.zeros(field.shape, np.float32)
    for band, share, response in zip(bands(field), BAND_SHARE, STANDARD_RESPONSE, strict=True):
        power += np.float32(share / response**2) * band**2
    here = ndi.uniform_filter(power, PLACE_PX)[even]
    whole = math.exp(np.log(beside**2 + weight**2 * here + 1e-6).mean())
    return math.sqrt(max(whole - beside**2, 0.0)) / weight


def bands(field: FloatArray) -> Iterator[FloatArray]:
    """Yield a field, (rows, columns), by size: one of the same shape for each of BAND_PX."""
    finer = ndi.gaussian_filter(field, BAND_PX[0] / 2)
    for width in BAND_PX:
        coarser = ndi.gaussian_filter(field, width)
        yield finer - coarser
        finer = coarser


def around(even: BoolArray, reach: int) -> tuple[slice, ...]:
    """Return the rectangle that holds even tissue with `reach` pixels about it."""
    inside = np.nonzero(even)
    return tuple(slice(max(at.min() - reach, 0), at.max() + reach + 1) for at in inside)


def quality(known: Known) -> float:
    """Return the label u, clipped to U_RANGE."""
    streaks = STREAK_WEIGHT * known.streaks
    sigma = math.hypot(known.own, known.inserted, streaks)
    lost = sum(share * (1 - left) for share, left in zip(BAND_SHARE, known.transfer, strict=True))
    u = 4 - 2 * math.log2(sigma / SIGMA_AT_4) - LOSS_POINTS * lost
    return min(max(u, U_RANGE[0]), U_RANGE[1])


def constants() -> dict[str, object]:
    """Return every constant that decides a label, for a recipe to show."""
    return {
        "sigma_at_4": SIGMA_AT_4,
        "streak_weight": STREAK_WEIGHT,
        "band_px": BAND_PX,
        "band_share": BAND_SHARE,
        "standard_response": STANDARD_RESPONSE,
        "place_px": PLACE_PX,
        "blob_hu": BLOB_HU,
        "loss_points": LOSS_POINTS,
        "u_range": U_RANGE,
    }
