"""The versions of one clean slice that are trained and tested on, each with its label."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from tfkt_node.records import FloatArray
from tfkt_node.training.collection import CleanSlice, Part, read_png
from tfkt_node.training.label import BAND_PX, BLOB_HU, Known, band_sigma, quality
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.simulation import Kernel, LowDose
from tfkt_node.training.smoothing import SMOOTHERS, transfer


class Kind(StrEnum):
    """What was done to a slice."""

    CLEAN = "clean"
    DOSE = "dose"
    VIEWS = "views"
    SMOOTHED = "smoothed"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a slice. hu: (size, size) float32. u: the label. detail: filter or views.

    draw: versions with one number share kernel and are comparable. source_u: label of what a
    smoothed slice was made from, else u.
    """

    kind: Kind
    draw: int
    kernel: Kernel
    dose: float
    detail: str
    known: Known
    u: float
    source_u: float
    hu: FloatArray


@dataclass(frozen=True, slots=True)
class _Draw:
    number: int
    base: LowDose
    rng: np.random.Generator

    def version(
        self, kind: Kind, dose: float, known: Known, hu: FloatArray, detail: str = ""
    ) -> Version:
        u = quality(known)
        return Version(kind, self.number, self.base.kernel, dose, detail, known, u, u, hu)


def versions(clean: CleanSlice, part: Part, recipe: DataRecipe) -> Iterator[Version]:
    """Make every version of one slice, the same for the same recipe.

    The clean slice comes once, first. Raises ValueError when its noise cannot be measured.
    """
    rng = np.random.default_rng([recipe.seed, zlib.crc32(clean.path.name.encode())])
    hu = read_png(clean.path)
    kernels = [list(Kernel)[i] for i in rng.permutation(len(Kernel))]
    names = [n for n in SMOOTHERS if part is not Part.TRAIN or n != recipe.held_out_smoother]
    for number in range(recipe.draws):
        kernel = kernels[number % len(kernels)]
        draw = _Draw(number, LowDose(hu, pixel_mm=clean.pixel_mm, kernel=kernel), rng)
        if number == 0:
            yield draw.version(Kind.CLEAN, 1.0, Known(draw.base.own_noise_hu), draw.base.hu)
        yield from _lower_doses(draw, recipe)
        yield from _fewer_views(draw, recipe)
        yield from _smoothed(draw, recipe, names)


def _lower_doses(draw: _Draw, recipe: DataRecipe) -> Iterator[Version]:
    base = draw.base
    for dose in recipe.doses:
        noise = base.inserted(dose, draw.rng)
        known = Known(base.own_noise_hu, band_sigma(noise, base.even))
        yield draw.version(Kind.DOSE, dose, known, base.hu + noise)


def _fewer_views(draw: _Draw, recipe: DataRecipe) -> Iterator[Version]:
    base = draw.base
    for views, dose in recipe.thinned:
        thin = base.thinned(views, dose, draw.rng)
        known = Known(
            base.own_noise_hu,
            band_sigma(thin.noise, base.even),
            band_sigma(thin.streaks, base.even),
        )
        hu = base.hu + thin.noise + thin.streaks
        yield draw.version(Kind.VIEWS, dose, known, hu, f"{views} views")


def _smoothed(draw: _Draw, recipe: DataRecipe, names: Sequence[str]) -> Iterator[Version]:
    base = draw.base
    blobs = tuple(zip(BAND_PX, BLOB_HU, strict=True))
    for dose in recipe.smoothed:
        noise = base.inserted(dose, draw.rng)
        source = Known(base.own_noise_hu, band_sigma(noise, base.even))
        noisy = base.hu + noise
        name = names[int(draw.rng.integers(len(names)))]
        strength = float(draw.rng.uniform(0.6, 1.4))
        smoother = _smoother(name, base.own_noise_hu / math.sqrt(dose), strength)
        smoothed = smoother(noisy)
        left = transfer(smoother, noisy, smoothed, base.even, blobs)
        known = replace(source, transfer=left)
        made = draw.version(Kind.SMOOTHED, dose, known, smoothed, name)
        yield replace(made, source_u=quality(source))


def _smoother(name: str, noise: float, strength: float) -> Callable[[FloatArray], FloatArray]:
    def smooth(hu: FloatArray) -> FloatArray:
        return np.asarray(SMOOTHERS[name](hu, noise, strength), np.float32)

    return smooth
