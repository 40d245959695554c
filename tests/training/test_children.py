"""A child-size body keeps its shape, and what X-rays meet in it scales with it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.iqa.physics import water_equivalent_diameter_mm
from tfkt_node.iqa.scope import find_body
from tfkt_node.training.simulation.children import PIXEL_MM, SCALES, child
from tfkt_node.training.simulation.tissue import even_tissue, noise_hu

SIZE = 512
ADULT_MM = 0.75
RADIUS_MM = 150.0


def disc(noise: float = 0.0) -> np.ndarray:
    """A disc of water off the centre, with white noise if wanted."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    inside = (rows - 20) ** 2 + (columns + 30) ** 2 < (RADIUS_MM / ADULT_MM) ** 2
    grain = noise * np.random.default_rng(0).standard_normal(inside.shape)
    return (np.where(inside, 0.0, -1000.0) + inside * grain).astype(np.float32)


@pytest.mark.parametrize("scale", [*SCALES, 0.5])
def test_a_disc_stays_a_disc_of_scaled_radius(scale):
    """Both diameters scale within 1 %, water-equivalent diameter within 2 %; it is centred."""
    adult = disc()
    small = child(adult, ADULT_MM, scale)

    assert small.hu.shape == adult.shape
    assert PIXEL_MM[0] <= small.pixel_mm <= PIXEL_MM[1]
    inside = small.hu > -500
    for axis in (0, 1):
        extent = np.flatnonzero(inside.any(axis=axis))
        assert np.ptp(extent) * small.pixel_mm == pytest.approx(2 * scale * RADIUS_MM, rel=0.01)
        assert extent.mean() == pytest.approx(SIZE / 2, abs=6)
    assert inside.sum() * small.pixel_mm**2 == pytest.approx(
        np.pi * (scale * RADIUS_MM) ** 2, rel=0.01
    )
    water = [
        water_equivalent_diameter_mm(find_body(hu), (pixel, pixel))
        for hu, pixel in ((adult, ADULT_MM), (small.hu, small.pixel_mm))
    ]
    assert water[1] == pytest.approx(scale * water[0], rel=0.02)


def test_what_is_left_of_the_adults_noise_is_measured():
    """Pixels that grow coarser average noise away, and the rest is said."""
    adult = disc(noise=20.0)
    before = noise_hu(adult, even_tissue(adult))

    # 0.5 mm of the child are 1 mm of the adult: less noise than on its own 0.75 mm pixels.
    small = child(adult, ADULT_MM, 0.5, 0.5)

    assert small.own_noise_hu < 0.9 * before
    assert small.own_noise_hu == pytest.approx(noise_hu(small.hu, even_tissue(small.hu)), rel=1e-6)


def test_averaging_keeps_what_there_is():
    """A smooth pattern comes out as it was, at the place it belongs to."""
    adult = disc()
    adult[adult > -500] = ndi.gaussian_filter(
        200 * np.random.default_rng(1).standard_normal(adult.shape), 8.0
    )[adult > -500]

    same = child(adult, 0.6, 1.0, 0.6)

    shift = (
        np.array(ndi.center_of_mass(same.hu > -500)) - ndi.center_of_mass(adult > -500)
    ).round()
    moved = np.roll(adult, shift.astype(int), (0, 1))
    inner = ndi.binary_erosion(moved > -500, iterations=10)
    assert same.hu[inner] == pytest.approx(moved[inner], abs=2)


def test_a_field_of_view_fits_the_body():
    """Small bodies get the finest pixels, large ones the coarsest."""
    assert child(disc(), ADULT_MM, 0.35).pixel_mm == PIXEL_MM[0]
    assert child(disc(), ADULT_MM, 1.2).pixel_mm == PIXEL_MM[1]


def test_a_body_cut_by_the_field_of_view_gets_no_straight_sides():
    """What the adult's slice cuts off is outside the child's as well."""
    cut = np.full((SIZE, SIZE), -1000, np.float32)
    cut[:, :-60] = disc()[:, 60:]

    small = child(cut, ADULT_MM, 0.5)

    assert small.pixel_mm == 0.5 * ADULT_MM
    assert (small.hu[:, 0] > -500).any()


def test_air_has_no_child():
    """A slice without a body is refused."""
    with pytest.raises(ValueError, match="no body"):
        child(np.full((SIZE, SIZE), -1000, np.float32), ADULT_MM, 0.5)
