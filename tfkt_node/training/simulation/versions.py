"""The versions of one clean slice that are trained and tested on, each with its label."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle, islice

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.records import FloatArray
from tfkt_node.training.images.collection import CleanSlice
from tfkt_node.training.images.slice_files import read_slice
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.simulation.artefacts import metal, motion, photon_starvation
from tfkt_node.training.simulation.children import SCALES, child
from tfkt_node.training.simulation.label import (
    BAND_PX,
    BLOB_HU,
    STREAK_WEIGHT,
    Known,
    band_sigma,
    quality,
)
from tfkt_node.training.simulation.low_dose import Kernel, LowDose
from tfkt_node.training.simulation.projector import Geometry
from tfkt_node.training.simulation.smoothing import SMOOTHERS, transfer
from tfkt_node.training.simulation.tissue import MIN_EVEN_PIXELS, even_tissue, local_sd, noise_hu

ALIASED_SHARE = 0.4
"""Share of white noise in that of the unapodised kernel: finer noise than a pixel folds back. With
it, simulated noise has the grain of the challenge's (noise between two images of one slice)."""

METAL_HU = 2000.0

BLENDED = (0.3, 1.0)
"""Share of the filter in a version that is blended with its source: every other one."""


class Kind(StrEnum):
    """What was done to a slice."""

    CLEAN = "clean"
    DOSE = "dose"
    VIEWS = "views"
    BOTH = "both"
    SMOOTHED = "smoothed"
    STREAKS = "streaks"
    CHILD = "child"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a slice. hu: (size, size) float32. u: the label.

    detail: filter, views and geometry, or artefact. tested_only: never fitted to. source_u: label
    of what a smoothed slice was made from, else u. noise: of the version, HU.
    """

    kind: Kind
    kernel: Kernel
    dose: float
    detail: str
    tested_only: bool
    known: Known
    u: float
    source_u: float
    noise: float
    hu: FloatArray


def versions(clean: CleanSlice, recipe: DataRecipe) -> Iterator[Version]:
    """Make every version of one slice, the same for the same recipe; the clean slice comes first.

    Raises ValueError when its noise cannot be measured.
    """
    rng = np.random.default_rng([recipe.seed, zlib.crc32(clean.path.name.encode())])
    kernel = list(Kernel)[int(rng.integers(len(Kernel)))]
    show = _Scanner.drawn(rng)
    base = LowDose(read_slice(clean.path), pixel_mm=clean.pixel_mm, kernel=kernel)
    slices = _Slices(base, show, rng, recipe)
    yield slices.version(Kind.CLEAN, 1.0, Known(base.own_noise_hu), base.hu)
    yield from slices.lower_doses_and_smoothed()
    yield from slices.fewer_views()
    yield from slices.artefacts()
    yield from _child(clean, base, show, rng, recipe)


@dataclass(frozen=True, slots=True)
class _Scanner:
    """How one scanner shows HU: all versions of a slice come from one.

    The challenge's tissue lies 40 to 50 HU above the textbook's, and its air is not empty.
    """

    slope: float
    offset: float
    air: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> _Scanner:
        slope, offset, air = rng.uniform((0.97, -20, 0), (1.03, 60, 70))
        return cls(float(slope), float(offset), float(air)) if rng.random() < 0.5 else cls(1, 0, 0)

    def show(self, hu: FloatArray) -> FloatArray:
        """Return what this scanner makes of true HU."""
        shown = self.slope * hu + self.offset
        air = ndi.gaussian_filter(hu, 4.0) < -850
        return np.asarray(np.clip(shown + self.air * air, -1024, 3071), np.float32)


@dataclass(frozen=True, slots=True)
class _Slices:
    base: LowDose
    scanner: _Scanner
    rng: np.random.Generator
    recipe: DataRecipe

    def version(
        self, kind: Kind, dose: float, known: Known, hu: FloatArray, detail: str = ""
    ) -> Version:
        shown = self.scanner.show(hu)
        noise = noise_hu(shown, even_tissue(shown))
        u = quality(known)
        return Version(kind, self.base.kernel, dose, detail, False, known, u, u, noise, shown)

    def lower_doses_and_smoothed(self) -> Iterator[Version]:
        """Yield each dose, and what filters make of the same noise."""
        base, recipe = self.base, self.recipe
        jitter = recipe.dose_jitter ** float(self.rng.uniform(-1, 1))
        tested = {name for name, _ in recipe.tested_smoothed}
        fitted = [name for name in SMOOTHERS if name not in tested]
        turns = cycle(fitted[place] for place in self.rng.permutation(len(fitted)))
        for dose in (1.0, *recipe.doses):
            fraction = dose if dose == 1 else dose * jitter
            noise = self.noise(base.inserted(fraction, self.rng))
            known = known_of(base, noise)
            noisy = base.hu + noise
            if dose < 1:
                yield self.version(Kind.DOSE, fraction, known, noisy)
            for name in islice(turns, recipe.smoothed.count(dose)):
                yield self.smoothed(fraction, known, noisy, name)
            for name, tested_dose in recipe.tested_smoothed:
                if tested_dose == dose:
                    made = self.smoothed(fraction, known, noisy, name, whole=True)
                    yield replace(made, tested_only=True)

    def smoothed(
        self, dose: float, source: Known, noisy: FloatArray, name: str, *, whole: bool = False
    ) -> Version:
        strength = float(self.rng.uniform(0.6, 1.4))
        share = 1.0 if whole or self.rng.random() < 0.5 else float(self.rng.uniform(*BLENDED))
        smoother = _smoother(name, math.hypot(source.own, source.inserted), strength, share)
        smoothed = smoother(noisy)
        blobs = tuple(zip(BAND_PX, BLOB_HU, strict=True))
        left = transfer(smoother, noisy, smoothed, self.base.even, blobs)
        made = self.version(
            Kind.SMOOTHED,
            dose,
            replace(source, transfer=left),
            smoothed,
            f"{name} {strength:.2f}, share {share:.2f}",
        )
        return replace(made, source_u=quality(source))

    def fewer_views(self) -> Iterator[Version]:
        base = self.base
        fewest, most = np.log(self.recipe.views)
        for dose in self.recipe.thinned:
            views = round(float(np.exp(self.rng.uniform(fewest, most))))
            geometry = list(Geometry)[int(self.rng.integers(len(Geometry)))]
            thin = base.thinned(views, dose, self.rng, geometry)
            noise = self.noise(thin.noise)
            known = known_of(base, noise, thin.streaks)
            hu = base.hu + noise + thin.streaks
            kind = Kind.VIEWS if dose == 1 else Kind.BOTH
            yield self.version(kind, dose, known, hu, f"{views} views, {geometry}")

    def artefacts(self) -> Iterator[Version]:
        base = self.base
        for artefact in self.recipe.artefacts * (motion, metal, photon_starvation):
            field = artefact(base, self.rng)
            known = known_of(base, np.zeros_like(field), field)
            yield self.version(Kind.STREAKS, 1.0, known, base.hu + field, artefact.__name__)

    def noise(self, field: FloatArray) -> FloatArray:
        """Give the noise of the unapodised kernel its white share; leave the others."""
        if self.base.kernel is not Kernel.RAMP:
            return field
        here = ndi.gaussian_filter(local_sd(field), 4.0)
        white = here * self.rng.standard_normal(field.shape)
        mixed = math.sqrt(1 - ALIASED_SHARE) * field + math.sqrt(ALIASED_SHARE) * white
        return np.asarray(mixed, np.float32)


def known_of(base: LowDose, noise: FloatArray, streaks: FloatArray | None = None) -> Known:
    """Measure the fields that are added to a slice; metal itself is no noise."""
    own = base.own_noise_hu
    inserted = band_sigma(noise, base.even, own)
    if streaks is None:
        return Known(own, inserted)
    metal_near = ndi.binary_dilation(base.hu + streaks > METAL_HU, iterations=8)
    beside = math.hypot(own, inserted)
    seen = band_sigma(np.where(metal_near, 0, streaks), base.even, beside, STREAK_WEIGHT)
    return Known(own, inserted, seen)


def _child(
    clean: CleanSlice,
    adult: LowDose,
    scanner: _Scanner,
    rng: np.random.Generator,
    recipe: DataRecipe,
) -> Iterator[Version]:
    """Yield a child-size body with the noise that the adult has at each of child_doses.

    None where the small body holds too little even tissue to tell its noise.
    """
    scale = float(rng.uniform(*SCALES))
    body = child(adult.hu, clean.pixel_mm, scale)
    if even_tissue(body.hu).sum() < MIN_EVEN_PIXELS:
        return
    base = LowDose(
        body.hu, pixel_mm=body.pixel_mm, kernel=adult.kernel, own_noise_hu=body.own_noise_hu
    )
    slices = _Slices(base, scanner, rng, recipe)
    for dose in recipe.child_doses:
        wanted = adult.own_noise_hu / math.sqrt(dose)
        noise = base.noise_of(math.sqrt(max(wanted**2 - base.own_noise_hu**2, 1.0)), rng)
        noise = slices.noise(noise)
        known = known_of(base, noise)
        yield slices.version(Kind.CHILD, dose, known, base.hu + noise, f"scale {scale:.2f}")


def _smoother(
    name: str, noise: float, strength: float, share: float
) -> Callable[[FloatArray], FloatArray]:
    """Return a filter that is blended with what it is given, as scanners offer it."""

    def smooth(hu: FloatArray) -> FloatArray:
        return np.asarray(hu + share * (SMOOTHERS[name](hu, noise, strength) - hu), np.float32)

    return smooth
