"""A slice presented otherwise has the same body, and so the same quality."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.training.simulation import presentation
from tfkt_node.training.simulation.presentation import FLAT_HU, MARGIN_PX, flat, presented
from tfkt_node.training.simulation.tissue import whole_body


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    """An oval of noisy tissue above a table, in noisy air, 512 x 512."""
    row, column = np.mgrid[:512, :512]
    hu = np.full((512, 512), -1000.0)
    hu[((row - 230) / 130) ** 2 + ((column - 250) / 180) ** 2 < 1] = 40
    hu[420:430, 60:450] = -200
    return (hu + np.random.default_rng(1).normal(0, 20, hu.shape)).astype(np.float32)


def turns(hu: np.ndarray) -> list[np.ndarray]:
    return [side for k in range(4) for side in (np.rot90(hu, k), np.rot90(hu, k)[:, ::-1])]


def test_the_body_stays_as_it_is(scan):
    """Whatever is drawn: in one of eight ways, every value of the body and its skin is there."""
    body = whole_body(scan, MARGIN_PX)
    for number in range(24):
        other = scan + np.float32(number)  # another slice, and so another draw
        made = presented(other)
        assert any(
            np.array_equal(np.where(body, back, 0), np.where(body, other, 0))
            for back in turns(made)
        )


def test_all_surroundings_are_drawn(scan):
    """Air with noise or without, with or without a table."""
    tables, airs = set(), set()
    for number in range(40):
        made = presented(scan + np.float32(number) / 4)
        airs.add(bool(np.isin(made[5, 200:300], FLAT_HU).all()))
        tables.add(bool(((made > -400) & (made < -100)).sum() > 2000))
    assert airs == tables == {True, False}


def test_the_same_slice_is_presented_alike(scan):
    """Drawn from the slice itself: a run that goes on makes the same maps."""
    assert np.array_equal(presented(scan), presented(scan.copy()))
    assert not np.array_equal(presented(scan), presented(scan + 1) - 1)


def test_flat_takes_air_and_table(scan):
    """All that is not body, or close to it, has one value."""
    made = flat(scan)

    assert np.array_equal(made[whole_body(scan, MARGIN_PX)], scan[whole_body(scan, MARGIN_PX)])
    assert set(np.unique(made[~whole_body(scan, MARGIN_PX)])) == {FLAT_HU[0]}
    assert (made[420:430, 100:400] == FLAT_HU[0]).all()


def test_slice_without_a_body_is_all_surroundings():
    """A slice of air does not stop a run."""
    air = np.full((512, 512), -1000, np.float32)

    assert presented(air).shape == air.shape
    assert not whole_body(air).any()
    assert np.array_equal(presentation.flat(air), air)
