"""Failures of a scan that no score may reward: motion, metal and starved rays.

Each function returns a field in HU to be added to the slice, made in its projections like
everything in `simulation`: what differs in the rays is reconstructed alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndi

from tfkt_node.records import FloatArray
from tfkt_node.training.simulation.low_dose import LowDose
from tfkt_node.training.simulation.tissue import whole_body

LARGEST_HU = 3071.0
"""The highest value of a 12-bit slice, which metal reaches."""

Range = tuple[float, float]

_SPECTRUM = np.array([0.3, 0.4, 0.3])
"""Share of the photons at 50, 70 and 100 keV: a coarse 120 kVp beam."""
_WATER = np.array([1.18, 1.0, 0.886])
"""Attenuation of water at these energies over that at 70 keV (NIST XCOM)."""
_METALS_PER_MM = {"titanium": np.array([0.55, 0.24, 0.12]), "steel": np.array([1.54, 0.65, 0.29])}
"""Attenuation of metals at these energies (NIST XCOM)."""

_LEAST_DEPTH_MM = 15.0
_TISSUE_HU = -200.0
"""Metal lies this deep, and not in air."""


def motion(
    base: LowDose,
    rng: np.random.Generator,
    *,
    shift_mm: Range = (2.0, 8.0),
    stretch: Range = (0.01, 0.04),
    share: Range = (0.1, 0.4),
) -> FloatArray:
    """Return what a body that moves and breathes during part of the scan adds to the slice, HU.

    shift_mm: how far it moves. stretch: how much it widens from back to front, as a part of its
    depth. share: of the views during which it is away from where it was. All drawn from their
    range; it leaves and returns smoothly, at a drawn moment and in a drawn direction.
    """
    beam, body = base.beam, whole_body(base.hu)
    views = beam.views
    away = _absence(views, rng.uniform(*share), rng)
    way = rng.uniform(0, 2 * np.pi)
    shift = rng.uniform(*shift_mm) / base.pixel_mm * away
    wider = 1 + rng.uniform(*stretch) * away
    back = float(np.flatnonzero(body.any(axis=1))[-1] - beam.size // 2)
    # The integrals of an affinely moved body are those of the body at rest, along other rays.
    angle = np.pi * np.arange(views) / views
    longer = np.hypot(np.cos(angle), wider * np.sin(angle))
    turned = np.arctan2(wider * np.sin(angle), np.cos(angle)) * views / np.pi
    moved_by = shift * np.cos(angle - way) - (wider - 1) * back * np.sin(angle)
    across = np.arange(-beam.size, beam.size)
    at = (across[None] - moved_by[:, None]) / longer[:, None] + beam.size
    rest = base.attenuation(np.where(body, base.hu, -1000.0))
    rows = np.broadcast_to(turned[:, None], at.shape)
    moved = ndi.map_coordinates(rest, [rows, at], mode="nearest") * (wider / longer)[:, None]
    return base.reconstruct(np.asarray(moved - rest, np.float32))


def metal(
    base: LowDose,
    rng: np.random.Generator,
    *,
    objects: tuple[int, int] = (1, 3),
    radius_mm: Range = (1.5, 5.0),
) -> FloatArray:
    """Return what small pieces of metal in the body add: themselves at 3071 HU, and their streaks.

    objects: how many, both ends included. radius_mm: of the pieces, round or elongated, of
    titanium or steel, as clips, screws and leads are. Dark bands between them come from beam
    hardening (water is corrected for, metal is not), fine streaks from rays with few photons.
    """
    pieces = _pieces(base, rng, int(rng.integers(objects[0], objects[1] + 1)), radius_mm)
    per_mm = _METALS_PER_MM[str(rng.choice(list(_METALS_PER_MM)))]
    metal_mm = np.clip(base.beam.project(pieces), 0, None) * base.pixel_mm
    # Ringing of the projector is no metal.
    metal_mm[metal_mm < 0.05] = 0
    behind = metal_mm > 0
    seen = base.lines.copy()
    seen[behind] = _through(base.lines[behind], metal_mm[behind], per_mm)
    noise = base.ray_noise(1.0, rng, lines=seen)
    field = base.reconstruct(np.where(behind, seen - base.lines + noise, 0))
    whole = np.where(pieces > 0.5, LARGEST_HU, base.hu + field)
    return np.asarray(np.clip(whole, base.hu.min(), LARGEST_HU) - base.hu, np.float32)


def photon_starvation(
    base: LowDose,
    rng: np.random.Generator,
    *,
    photons: Range = (4.0, 40.0),
    electronic: Range = (1.0, 6.0),
    share: Range = (0.15, 0.5),
) -> FloatArray:
    """Return the streaks of rays with hardly any photons, as between shoulders and hips, HU.

    photons: what is left in the darkest ray, drawn on a logarithmic scale; electronic: SD of what
    the detector adds to it, in photons. share: of the rays through the body that are darkened by
    the arms or hips in their way: the more, the darker they are and the closer to lateral. The
    bone itself is not drawn.
    """
    lines = base.lines
    start = np.quantile(lines[lines > 0.2], 1 - rng.uniform(*share))
    lateral = np.sin(np.pi * np.arange(base.beam.views) / base.beam.views) ** 2
    excess = np.clip(lines - start, 0, None) * lateral[:, None]
    darkest = np.unravel_index(excess.argmax(), excess.shape)
    least = np.exp(rng.uniform(*np.log(photons)))
    missing = np.log(base.photons / least) - (lines + base.bowtie)[darkest]
    extra = excess * max(missing, 0) / excess[darkest]
    noise = base.ray_noise(1.0, rng, rng.uniform(*electronic), lines + extra)
    # The noise that these rays have in the slice already is not added again.
    added = np.sqrt(1 - np.exp(-extra))
    return base.reconstruct(np.asarray(added * noise, np.float32))


def _absence(views: int, share: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (views,) 0..1: how far the body is away, for a share of the views around one."""
    middle = rng.uniform(share / 2, 1 - share / 2)
    time = (np.arange(views) / views - middle) / share
    return np.where(np.abs(time) < 0.5, np.cos(np.pi * time) ** 2, 0.0)


def _pieces(base: LowDose, rng: np.random.Generator, number: int, radius_mm: Range) -> FloatArray:
    """Draw pieces of metal in tissue: (size, size), how much of each pixel they fill."""
    depth = ndi.distance_transform_edt(whole_body(base.hu)) * base.pixel_mm
    inside = (depth > _LEAST_DEPTH_MM) & (ndi.gaussian_filter(base.hu, 2.0) > _TISSUE_HU)
    places = np.argwhere(inside)
    rows, columns = np.indices(base.hu.shape)
    filled = np.zeros(base.hu.shape, np.float32)
    for row, column in places[rng.choice(len(places), number)]:
        radius = rng.uniform(*radius_mm) / base.pixel_mm
        longer, turn = rng.uniform(1, 2.5), rng.uniform(0, np.pi)
        along = (rows - row) * np.sin(turn) + (columns - column) * np.cos(turn)
        beside = (rows - row) * np.cos(turn) - (columns - column) * np.sin(turn)
        distance = radius - np.hypot(along / longer, beside)
        filled = np.maximum(filled, np.clip(distance + 0.5, 0, 1))
    return np.asarray(filled, np.float32)


def _through(lines: FloatArray, metal_mm: FloatArray, per_mm: FloatArray) -> FloatArray:
    """Return the attenuation that a scanner reads behind tissue and metal.

    lines, metal_mm: (n,). The beam hardens in both; the scanner corrects as if all were water.
    """
    water = np.linspace(0, 40, 2000)
    read = -np.log(np.exp(-np.outer(water, _WATER)) @ _SPECTRUM)
    passed = np.exp(-np.outer(lines, _WATER) - np.outer(metal_mm, per_mm)) @ _SPECTRUM
    return np.asarray(np.interp(-np.log(passed), read, water), np.float32)
