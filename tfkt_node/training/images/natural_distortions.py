"""Noise, blur and JPEG simulated on undistorted natural images, with a surrogate score for each.

Sets of natural images can be poor in noise, the main defect of CT: a network that is only ever
shown lost sharpness learns that sharp is good, and prefers noise. Nobody has scored these images.
Their scores are straight lines through the published scores of LIVE (release 2) for white noise,
Gaussian blur and JPEG on its contents "lighthouse" and "monarch", 0..1 as `mos01` of the shared
set; coloured noise, which LIVE has not, is given the line of white noise at equal SD: an
assumption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.records import FloatArray

NOISE_SD = (4.0, 8.0, 16.0, 32.0, 64.0)
"""Grey levels of 0..255."""

NOISE_PEAKS_PER_PX = (0.13, 0.22, 0.40)
"""Where coloured noise is strongest, cycles per pixel: reconstruction kernels at 0.75 mm."""

BLUR_PX = (0.7, 1.2, 2.0, 3.5, 6.0)
"""Sigma of the Gaussian."""

JPEG_QUALITY = (50, 25, 12, 6, 3)
"""libjpeg's scale of 1..100."""


def distorted(picture: FloatArray, rng: np.random.Generator) -> Iterator[tuple[FloatArray, float]]:
    """Yield 20 distorted copies of a picture with their scores, 0..1, higher is better.

    picture: (rows, columns), luminance 0..255; so are the copies, float32.
    """
    for sd in NOISE_SD:
        white = rng.standard_normal(picture.shape, np.float32)
        for grain in (white, coloured(white, float(rng.choice(NOISE_PEAKS_PER_PX)))):
            yield _shown(picture + sd * grain), noise_score(sd)
    for sigma in BLUR_PX:
        yield _shown(ndi.gaussian_filter(picture, sigma)), blur_score(sigma)
    for quality in JPEG_QUALITY:
        packed = _jpeg(picture, quality)
        yield packed, jpeg_score(float(np.sqrt(np.mean((packed - picture) ** 2))))


def noise_score(sd: float) -> float:
    """Score noise by its SD in grey levels: 0.80 at 4.3 falling to 0.01 at 80."""
    return _cut(0.80 - 0.19 * math.log2(sd / 5))


def blur_score(sigma_px: float) -> float:
    """Score Gaussian blur by its sigma in pixels: 0.79 at 0.9 falling to 0.17 at 8."""
    return _cut(0.79 - 0.20 * math.log2(sigma_px / 0.9))


def jpeg_score(rmse: float) -> float:
    """Score JPEG by its root mean square error in grey levels: 0.87 at 6 falling to 0.10 at 21."""
    return _cut(1.13 - 0.050 * rmse)


def coloured(white: FloatArray, peak_per_px: float) -> FloatArray:
    """Colour white noise as filtered back-projection does; the SD becomes 1.

    The spectrum is a ramp times a Gaussian, strongest at `peak_per_px`, as in `simulation`.
    """
    rows, columns = (np.fft.fftfreq(n) for n in white.shape)
    frequency = np.hypot(rows[:, None], columns)
    # Noise power of a back-projection goes with the frequency, so the amplitude with its root.
    shape = np.sqrt(frequency) * np.exp(-((frequency / (2 * peak_per_px)) ** 2))
    grain = np.fft.ifft2(np.fft.fft2(white) * shape).real
    return np.asarray(grain / grain.std(), np.float32)


def _jpeg(picture: FloatArray, quality: int) -> FloatArray:
    import imagecodecs

    stored = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return np.asarray(
        imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(stored, level=quality)), np.float32
    )


def _shown(picture: FloatArray) -> FloatArray:
    return np.asarray(np.clip(picture, 0, 255), np.float32)


def _cut(score: float) -> float:
    return min(max(score, 0.0), 1.0)
