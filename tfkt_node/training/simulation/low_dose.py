"""The same slice at a fraction of its dose, or from fewer views.

Only what changes is simulated, in the projections, and added to the slice as it is: noise of the
photons that are missing, and the streaks of the views that are missing. Noise already in the
slice stays, and tells how many photons it was taken with. One energy, a bowtie filter, a constant
tube current. Needs numpy and scipy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.records import FloatArray
from tfkt_node.training.simulation.projector import Geometry, ParallelBeam, parallel_beam
from tfkt_node.training.simulation.tissue import (
    MIN_EVEN_PIXELS,
    even_tissue,
    field_noise_hu,
    noise_hu,
)

WATER_PER_MM = 0.0193
"""Attenuation of water at about 70 keV, the mean energy of a 120 kVp beam (NIST XCOM)."""

BOWTIE_MM = 150.0
"""The bowtie filter lets exp(-(s / 150 mm)^2) of the photons pass at distance s from the centre,
about a fifth at 190 mm as common body filters do; without it noise is too uneven over the body."""


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
    RAMP = "ramp", 2.0
    """Next to no apodisation, as noise of the challenge images looks."""


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

    lines: (views, bins) attenuation of the slice along each ray. bowtie: (bins,) attenuation of the
    filter before it. photons: of the central ray in air at full dose.
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
        self.pixel_mm = pixel_mm
        self.kernel = kernel
        self.even = even_tissue(self.hu)
        self.own_noise_hu = noise_hu(self.hu, self.even) if own_noise_hu is None else own_noise_hu
        if not self.own_noise_hu > 0:
            raise ValueError("the slice's own noise cannot be measured; give own_noise_hu")
        if self.even.sum() < MIN_EVEN_PIXELS:
            raise ValueError("the slice shows too little even soft tissue to set the dose by")
        self.beam: ParallelBeam = parallel_beam(hu.shape[0])
        self.per_hu = WATER_PER_MM * pixel_mm / 1000
        per_mm = self.beam.frequencies() / pixel_mm
        self._response = np.exp(-((per_mm / (2 * kernel.peak_per_mm)) ** 2))
        self.lines = self.attenuation(self.hu)
        across_mm = np.arange(-self.beam.size, self.beam.size) * pixel_mm
        self.bowtie = np.asarray((across_mm / BOWTIE_MM) ** 2, np.float32)
        self.photons = self._photons_at_full_dose(np.random.default_rng(seed))

    def inserted(
        self, dose_fraction: float, rng: np.random.Generator, electronic: float = 0.0
    ) -> FloatArray:
        """Return the noise that brings the slice from full dose to a fraction of it, HU.

        dose_fraction: in (0, 1]. Variances add: own / fraction = own + inserted, so what is
        inserted has own variance times (1 - fraction) / fraction. electronic: SD that the detector
        adds to each reading, in photons; with it noise grows faster than that.
        """
        _check_fraction(dose_fraction)
        if dose_fraction == 1:
            return np.zeros_like(self.hu)
        return self.reconstruct(self._missing_noise(dose_fraction, rng, electronic=electronic))

    def scan_noise(self, dose: float, rng: np.random.Generator) -> FloatArray:
        """Return the noise of a whole scan at `dose` times the full one, HU."""
        return self.reconstruct(self.ray_noise(dose, rng))

    def noise_of(self, sd_hu: float, rng: np.random.Generator) -> FloatArray:
        """Return scan noise that `tissue.field_noise_hu` measures as sd_hu in even tissue, HU."""
        field = self.scan_noise((self.own_noise_hu / sd_hu) ** 2, rng)
        return field * np.float32(sd_hu / field_noise_hu(field, self.even))

    def thinned(
        self,
        views: int,
        dose_fraction: float = 1.0,
        rng: np.random.Generator | None = None,
        geometry: Geometry = Geometry.PARALLEL,
    ) -> Thinned:
        """Return what a scan with only `views` of the views adds.

        views: over half a turn (PARALLEL) or a full one (FAN), any number up to half of the
        projector's; where the first one lies is drawn. dose_fraction: all photons of the kept views
        together, as a share of the full scan's. At 1 the kept views hold the photons of the left
        out ones as well, and the noise of the slice stays what it is; a scan that just leaves out
        views and keeps its tube current has dose_fraction = views / 720, and `noise` holds what
        that adds to the slice's own share, too.
        """
        _check_fraction(dose_fraction)
        rng = rng or np.random.default_rng(0)
        weight = self.beam.kept_rays(
            views, geometry, phase=float(rng.random()), pixel_mm=self.pixel_mm
        )
        streaks = self.reconstruct(self._noiseless_lines, weight - 1)
        if dose_fraction == 1:
            return Thinned(streaks, np.zeros_like(streaks))
        gain = self.beam.views / views
        noise = self._missing_noise(dose_fraction, rng, gain)
        # A view shared between two angles is two readings with half of its photons each.
        return Thinned(streaks, self.reconstruct(np.sqrt(gain * weight) * noise))

    def attenuation(self, hu: FloatArray) -> FloatArray:
        """Return the line integrals of a slice of the same size: (views, bins), no unit."""
        density = np.clip(hu + 1000, 0, None)
        # Ringing makes air slightly negative, and a biased logarithm of it a constant offset.
        return np.clip(self.beam.project(density * self.per_hu), 0, None)

    def reconstruct(self, lines: FloatArray, weight: FloatArray | None = None) -> FloatArray:
        """Return what attenuation (views, bins) looks like in the slice, HU.

        weight: as in `ParallelBeam.back_project`.
        """
        return self.beam.back_project(lines, self._response, weight) / np.float32(self.per_hu)

    def ray_noise(
        self,
        dose: float,
        rng: np.random.Generator,
        electronic: float = 0.0,
        lines: FloatArray | None = None,
    ) -> FloatArray:
        """Draw the error of each ray's attenuation, (views, bins), at `dose` times the full one.

        lines: attenuation of the rays, of the slice where None. electronic: in photons.
        """
        lines = self.lines if lines is None else lines
        expected = self.photons * dose * np.exp(-(lines + self.bowtie).astype(np.float64))
        counts = rng.poisson(expected).astype(np.float64)
        if electronic:
            counts += electronic * rng.standard_normal(counts.shape)
        # Half a photon more makes the mean logarithm of few photons right (Anscombe 1948).
        error = -np.log(np.maximum(counts + 0.5, 0.5) / expected)
        return np.asarray(error, np.float32)

    def _missing_noise(
        self,
        dose_fraction: float,
        rng: np.random.Generator,
        gain: float = 1.0,
        electronic: float = 0.0,
    ) -> FloatArray:
        """Draw the noise that full dose lacks: variance of the fraction less that of the whole."""
        missing = dose_fraction / (1 - dose_fraction)
        # Photons count once in the variance, electronic noise squared: it takes its own factor.
        electronic *= np.sqrt((1 + dose_fraction) / (1 - dose_fraction))
        return self.ray_noise(gain * missing, rng, electronic)

    @cached_property
    def _noiseless_lines(self) -> FloatArray:
        """Attenuation without the slice's own noise, which is no anatomy and makes no streaks."""
        smooth = ndi.gaussian_filter(self.hu, 1.5)
        detail = self.hu - smooth
        kept = 1 - (3 * self.own_noise_hu) ** 2 / np.maximum(detail**2, 1e-6)
        return self.attenuation(smooth + detail * np.clip(kept, 0, None))

    def _photons_at_full_dose(self, rng: np.random.Generator) -> float:
        """Find how many photons a ray in air must hold to give the slice's own noise."""
        unit = np.exp((self.lines + self.bowtie) / 2) * rng.standard_normal(self.lines.shape)
        field = self.reconstruct(unit.astype(np.float32))
        # Measured as the slice's own noise is, so that both mean the same.
        return (field_noise_hu(field, self.even) / self.own_noise_hu) ** 2


def _check_fraction(dose_fraction: float) -> None:
    if not 0 < dose_fraction <= 1:
        raise ValueError(f"a dose fraction lies in (0, 1], got {dose_fraction}")
