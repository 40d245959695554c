"""Smoothing, as reconstruction software does it, and what it takes away.

Smoothing lowers noise and detail alike. How much detail is left is measured, not assumed: a grid
of faint blobs is added to the noisy slice, and the amplitude that survives is read off.
Source of the idea: Samei et al., TG-233, Med. Phys. 2019, doi 10.1002/mp.13763 (task transfer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.records import BoolArray, FloatArray

_CLIP_HU = (-1024.0, 1500.0)


def _total_variation(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    from skimage.restoration import denoise_tv_chambolle

    clipped = np.clip(hu, *_CLIP_HU)
    return np.asarray(
        denoise_tv_chambolle(clipped, weight=0.7 * strength * noise, eps=1e-5, max_num_iter=40)
    )


def _non_local_means(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    from skimage.restoration import denoise_nl_means

    clipped = np.clip(hu, *_CLIP_HU)
    return np.asarray(
        denoise_nl_means(
            clipped, patch_size=5, patch_distance=4, h=0.8 * strength * noise, sigma=noise
        )
    )


def _gaussian(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    return np.asarray(ndi.gaussian_filter(hu, strength))


def _bilateral(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    """Average neighbours that are near and alike (Tomasi & Manduchi, ICCV 1998).

    Written on shifted arrays: scikit-image's takes seconds for a slice.
    """
    reach, alike = 3, 2.5 * strength * noise
    centre = np.clip(hu, *_CLIP_HU).astype(np.float32)
    padded = np.pad(centre, reach, mode="edge")
    weights, values = np.zeros_like(centre), np.zeros_like(centre)
    for row, column in np.ndindex(2 * reach + 1, 2 * reach + 1):
        there = padded[row : row + hu.shape[0], column : column + hu.shape[1]]
        apart = np.float32(((row - reach) ** 2 + (column - reach) ** 2) / (2 * 1.8**2))
        weight = np.exp(-(((there - centre) / np.float32(alike)) ** 2) / 2 - apart)
        weights += weight
        values += weight * there
    return np.asarray(values / weights)


def _diffusion(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    """Let values flow to their neighbours, less across edges (Perona & Malik, PAMI 1990)."""
    values, edge = np.clip(hu, *_CLIP_HU).astype(np.float32), np.float32(2.5 * noise)
    for _ in range(round(10 * strength)):
        change = np.zeros_like(values)
        for axis in (0, 1):
            step = np.diff(values, axis=axis)
            flow = np.float32(0.2) * step * np.exp(-((step / edge) ** 2))
            # What leaves one pixel arrives in the next.
            first, last = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
            first[axis], last[axis] = (1, 0), (0, 1)
            change += np.pad(flow, last) - np.pad(flow, first)
        values += change
    return values


def _wiener(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    """Pull each pixel to the mean around it, where that varies no more than noise does (Lee 1980).

    Blotchy: what noise exceeds by chance is kept.
    """
    values = np.clip(hu, *_CLIP_HU).astype(np.float64)
    mean = ndi.uniform_filter(values, 7)
    power = ndi.uniform_filter(values**2, 7) - mean**2
    kept = np.clip(1 - (strength * noise) ** 2 / np.maximum(power, 1e-6), 0, None)
    return np.asarray(mean + kept * (values - mean), np.float32)


def _median(hu: FloatArray, noise: float, strength: float) -> FloatArray:
    return np.asarray(ndi.median_filter(hu, size=3 if strength < 1 else 5))


Smoother = Callable[[FloatArray, float, float], FloatArray]
"""(slice in HU, its noise in HU, strength about 0.6 to 1.4) -> smoothed slice."""

SMOOTHERS: Mapping[str, Smoother] = MappingProxyType(
    {
        "total_variation": _total_variation,
        "non_local_means": _non_local_means,
        "gaussian": _gaussian,
        "bilateral": _bilateral,
        "diffusion": _diffusion,
        "wiener": _wiener,
        "median": _median,
    }
)


def transfer(
    smoother: Callable[[FloatArray], FloatArray],
    noisy: FloatArray,
    smoothed: FloatArray,
    even: BoolArray,
    blobs: Sequence[tuple[float, float]],
) -> tuple[float, ...]:
    """Measure how much of faint blobs survives smoothing: 0..1 for each kind.

    smoothed: what the smoother makes of `noisy`. blobs: (standard deviation in pixels, height in
    HU) of each kind. The kinds take turns on a grid, far enough apart not to meet; only those in
    even tissue are read, all at once. 1 where no blob of a kind lies in even tissue.
    """
    points = [_places(noisy.shape, turn, len(blobs)) for turn in range(len(blobs))]
    shapes = [
        ndi.gaussian_filter(at.astype(np.float32), width) * (2 * np.pi * width**2 * height)
        for at, (width, height) in zip(points, blobs, strict=True)
    ]
    left = smoother((noisy + np.sum(shapes, axis=0)).astype(np.float32)) - smoothed
    kept = []
    for at, shape, (width, _) in zip(points, shapes, blobs, strict=True):
        read = at & even
        if not read.any():
            kept.append(1.0)
            continue
        # Matched reading: noise that the smoother shuffles around averages out under the blob.
        found = ndi.gaussian_filter(left, width)[read].mean()
        kept.append(float(np.clip(found / ndi.gaussian_filter(shape, width)[read].mean(), 0, 1)))
    return tuple(kept)


def _places(shape: tuple[int, ...], turn: int, kinds: int) -> BoolArray:
    """Mark every `kinds`-th point of a grid 20 pixels wide, so that neighbours differ in kind."""
    rows, columns = np.indices((shape[0] // 20, shape[1] // 20))
    chosen = (rows + columns) % kinds == turn
    places = np.zeros(shape, bool)
    places[10 + 20 * rows[chosen], 10 + 20 * columns[chosen]] = True
    return places
