"""The same slice at a fraction of its dose, or from fewer views.

Only what changes is simulated, in the projections, and added to the slice as it is: noise of the
photons that are missing, and the streaks of the views that are missing. Noise already in the
slice stays, and tells how many photons it was taken with. Parallel beam, one energy, no bowtie
filter, no detector noise. Needs numpy and scipy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tfkt_node.records import FloatArray
from tfkt_node.training.projector import ParallelBeam, parallel_beam
from tfkt_node.training.tissue import MIN_EVEN_PIXELS, even_tissue, field_noise_hu, noise_hu

WATER_PER_MM = 0.0193
"""Attenuation of water at about 70 keV, the mean energy of a 120 kVp beam (NIST XCOM)."""


class Kernel(StrEnum):
    """Reconstruction kernels, by the frequency at which their noise is strongest."""

    peak_per_mm: float

    def __new__(cls, value: str, peak_per_mm: float) -> Kernel:
        """Keep the peak of the noise power, in cycles per mm, beside the name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.peak_per_mm = peak_per_mm
        return member

    SOFT = "soft", 0.18
    STANDARD = "standard", 0.30
    SHARP = "sharp", 0.54


@dataclass(frozen=True, slots=True)
class Thinned:
    """What leaving out views adds to a slice: (size, size) float32 each, HU."""

    streaks: FloatArray
    noise: FloatArray


class LowDose:
    """One slice ready to be taken again with fewer photons.

    hu: (size, size), HU, size even. own_noise_hu: the noise that full dose has in even soft
    tissue, as `tissue.noise_hu` measures it; measured on the slice when None (a noise-free phantom
    must say it). Raises ValueError for a slice that is not square or whose noise cannot be told.
    """

    def __init__(
        self,
        hu: FloatArray,
        *,
        pixel_mm: float = 0.75,
        kernel: Kernel = Kernel.STANDARD,
        own_noise_hu: float | None = None,
        seed: int = 0,
    ) -> None:
        if hu.ndim != 2 or hu.shape[0] != hu.shape[1] or hu.shape[0] % 2:
            raise ValueError(f"a slice must be square with an even side, got {hu.shape}")
        self.hu = np.asarray(hu, np.float32)
        self.kernel = kernel
        self.even = even_tissue(self.hu)
        self.own_noise_hu = noise_hu(self.hu, self.even) if own_noise_hu is None else own_noise_hu
        if not self.own_noise_hu > 0:
            raise ValueError("the slice's own noise cannot be measured; give own_noise_hu")
        if self.even.sum() < MIN_EVEN_PIXELS:
            raise ValueError("the slice shows too little even soft tissue to set the dose by")
        self._beam: ParallelBeam = parallel_beam(hu.shape[0])
        self._per_hu = WATER_PER_MM * pixel_mm / 1000
        density = np.clip(self.hu + 1000, 0, None)
        # Ringing makes air slightly negative, and a biased logarithm of it a constant offset.
        self._lines = np.clip(self._beam.project(density * self._per_hu), 0, None)
        per_mm = self._beam.frequencies() / pixel_mm
        self._response = np.exp(-((per_mm / (2 * kernel.peak_per_mm)) ** 2))
        self.photons = self._photons_at_full_dose(np.random.default_rng(seed))

    def inserted(self, dose_fraction: float, rng: np.random.Generator) -> FloatArray:
        """Return the noise that brings the slice from full dose to a fraction of it, HU.

        dose_fraction: in (0, 1]. Variances add: own / fraction = own + inserted, so what is
        inserted has own variance times (1 - fraction) / fraction.
        """
        if not 0 < dose_fraction <= 1:
            raise ValueError(f"a dose fraction lies in (0, 1], got {dose_fraction}")
        if dose_fraction == 1:
            return np.zeros_like(self.hu)
        return self.scan_noise(dose_fraction / (1 - dose_fraction), rng)

    def scan_noise(self, dose: float, rng: np.random.Generator) -> FloatArray:
        """Return the noise of a whole scan at `dose` times the full one, HU."""
        return self._reconstruct(self._ray_noise(dose, rng))

    def thinned(
        self, views: int, dose_fraction: float = 1.0, rng: np.random.Generator | None = None
    ) -> Thinned:
        """Return what a scan with only `views` of the views adds.

        views: divides the projector's number of views. The kept views share the dose between
        them: noise is that of `dose_fraction` whatever their number, and streaks come on top.
        """
        if views < 1 or self._beam.views % views:
            raise ValueError(f"{self._beam.views} views cannot be thinned evenly to {views}")
        keep = self._beam.views // views
        rng = rng or np.random.default_rng(0)
        weight = np.zeros((self._beam.views, 1), np.float32)
        weight[int(rng.integers(keep)) :: keep] = keep
        streaks = self._reconstruct((weight - 1) * self._lines)
        if dose_fraction == 1:
            return Thinned(streaks, np.zeros_like(streaks))
        noise = self._ray_noise(keep * dose_fraction / (1 - dose_fraction), rng)
        return Thinned(streaks, self._reconstruct(weight * noise))

    def _ray_noise(self, dose: float, rng: np.random.Generator) -> FloatArray:
        expected = self.photons * dose * np.exp(-self._lines.astype(np.float64))
        counts = np.maximum(rng.poisson(expected), 0.5)
        return np.asarray(-np.log(counts / expected), np.float32)

    def _reconstruct(self, lines: FloatArray) -> FloatArray:
        return self._beam.back_project(lines, self._response) / np.float32(self._per_hu)

    def _photons_at_full_dose(self, rng: np.random.Generator) -> float:
        """Find how many photons a ray in air must hold to give the slice's own noise."""
        unit = np.exp(self._lines / 2) * rng.standard_normal(self._lines.shape)
        field = self._reconstruct(unit.astype(np.float32))
        # Measured as the slice's own noise is, so that both mean the same.
        return (field_noise_hu(field, self.even) / self.own_noise_hu) ** 2


def insert_noise(
    hu: FloatArray,
    dose_fraction: float,
    rng: np.random.Generator,
    *,
    pixel_mm: float = 0.75,
    own_noise_hu: float | None = None,
) -> FloatArray:
    """Return a slice as it would look at a fraction of its dose, with a standard kernel.

    hu: (size, size), HU. Returns the same shape, float32, HU; the input where the fraction is 1.
    The same generator state gives the same slice. Errors and own_noise_hu as for LowDose, which
    serves several versions of one slice or another kernel.
    """
    full = LowDose(hu, pixel_mm=pixel_mm, own_noise_hu=own_noise_hu)
    return full.hu + full.inserted(dose_fraction, rng)
