"""Motion, metal and starved rays look like what they are named after."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.training.simulation import artefacts
from tfkt_node.training.simulation.artefacts import LARGEST_HU, metal, motion, photon_starvation
from tfkt_node.training.simulation.low_dose import LowDose

SIZE = 256
PIXEL_MM = 1.4
SEEDS = range(3)


def body() -> np.ndarray:
    """An ellipse of soft tissue, 340 mm wide, with a spine and a gas bubble."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    hu = np.where((rows / 80) ** 2 + (columns / 115) ** 2 < 1, 50.0, -1000.0)
    hu[(rows - 45) ** 2 + columns**2 < 12**2] = 600.0
    hu[(rows + 50) ** 2 + (columns - 20) ** 2 < 10**2] = -900.0
    return hu.astype(np.float32)


@pytest.fixture(scope="module")
def base():
    return LowDose(body(), pixel_mm=PIXEL_MM, own_noise_hu=10.0)


def fields(artefact, base, **ranges):
    return [artefact(base, np.random.default_rng(seed), **ranges) for seed in SEEDS]


@pytest.mark.parametrize("artefact", [motion, metal, photon_starvation])
def test_artefacts_repeat_and_keep_the_hu_of_tissue(base, artefact):
    """The same seed gives the same field; half of the tissue is brighter by it, half darker."""
    for field, again in zip(fields(artefact, base), fields(artefact, base), strict=True):
        assert np.array_equal(field, again)
        assert field.dtype == np.float32
        assert field.shape == base.hu.shape
        assert np.median(field[base.even]) == pytest.approx(0, abs=2)


def test_a_body_at_rest_shows_no_motion(base):
    """Without a shift and a stretch nothing is added."""
    field = motion(base, np.random.default_rng(0), shift_mm=(0, 0), stretch=(0, 0))

    assert np.abs(field[base.even]).max() < 0.5


def test_motion_moves_the_body_by_what_was_said(base, monkeypatch):
    """A body away in all views is the body, moved by shift_mm; stretched, its back stays."""
    monkeypatch.setattr(artefacts, "_absence", lambda views, share, rng: np.ones(views))

    def outline(field):
        inside = base.hu + field > -475
        centre = np.array(ndi.center_of_mass(inside))
        return centre, np.flatnonzero(inside.any(axis=1))[[0, -1]]

    at_rest, (front, back) = outline(np.zeros_like(base.hu))
    moved, _ = outline(motion(base, np.random.default_rng(1), shift_mm=(14, 14), stretch=(0, 0)))
    _, wide = outline(motion(base, np.random.default_rng(1), shift_mm=(0, 0), stretch=(0.1, 0.1)))

    assert np.hypot(*(moved - at_rest)) * PIXEL_MM == pytest.approx(14, abs=0.7)
    assert wide[0] == pytest.approx(front - 0.1 * (back - front), abs=2)
    assert wide[1] == pytest.approx(back, abs=2)


def test_motion_smears_edges_most(base):
    """What moves shows at gas and bone, not in even tissue."""
    edges = ndi.gaussian_gradient_magnitude(base.hu, 2.0) > 50
    far = base.even & ~ndi.binary_dilation(edges, iterations=12)

    for field in fields(motion, base):
        assert field[edges].std() > 4 * field[far].std()


def test_metal_is_white_and_streaks_near_it(base):
    """One to three pieces at 3071 HU inside the body; streaks fade with the distance."""
    for field in fields(metal, base):
        hu = base.hu + field
        white = hu >= LARGEST_HU
        _, pieces = ndi.label(ndi.binary_dilation(white, iterations=2))
        distance = ndi.distance_transform_edt(~white)
        near = base.even & (distance > 4) & (distance < 15)
        far = base.even & (distance > 60)

        assert 1 <= pieces <= 3
        assert white[base.hu > -900].sum() == white.sum()
        assert hu.max() == LARGEST_HU
        assert field[near].std() > 3 * field[far].std()
        assert abs(np.median(field[far])) < 1


def test_two_pieces_of_metal_darken_what_lies_between(base, monkeypatch):
    """Beam hardening and starvation draw a dark band from piece to piece."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    pair = np.hypot(rows, np.abs(columns) - 40) < 4
    monkeypatch.setattr(artefacts, "_pieces", lambda *_: pair.astype(np.float32))

    for field in fields(metal, base):
        between = (np.abs(rows) < 2) & (np.abs(columns) < 30)
        across = (np.abs(columns) < 2) & (np.abs(rows) > 15) & (np.abs(rows) < 25)
        assert field[between].mean() < field[across].mean() - 15


def test_starved_rays_streak_from_side_to_side(base):
    """Streaks run along the rows, through the body's widest part."""
    for field in fields(photon_starvation, base):
        tissue = field * base.even
        along = ndi.gaussian_filter1d(tissue, 6.0, axis=1)[base.even].std()
        down = ndi.gaussian_filter1d(tissue, 6.0, axis=0)[base.even].std()
        assert along > 2 * down
        assert abs(field[base.even].mean()) < 0.05 * field[base.even].std()


def test_plenty_of_photons_starve_no_ray(base):
    """Where the darkest ray has photons enough, nothing is added."""
    field = photon_starvation(base, np.random.default_rng(0), photons=(1e9, 1e9))

    assert not field.any()
