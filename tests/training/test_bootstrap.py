"""Patients are drawn, not slices."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.training.judging.bootstrap import bounds, draws

PATIENTS = ["b", "a", "b", "c", "b"]


def test_rows_of_a_patient_are_drawn_together():
    """Every draw holds three patients, each with all of its rows; the seed says which."""
    found = draws(PATIENTS, seed=1, count=200)

    b, a, c = found[:, 0], found[:, 1], found[:, 3]
    assert found.shape == (200, 5)
    assert np.array_equal(found[:, [2, 4]], np.stack([b, b], axis=1))
    assert np.array_equal(a + b + c, np.full(200, 3))
    assert len({tuple(one) for one in found.tolist()}) == 10  # all ways to draw 3 of 3
    assert np.array_equal(found, draws(PATIENTS, seed=1, count=200))
    assert not np.array_equal(found, draws(PATIENTS, seed=2, count=200))


def test_bounds_hold_all_but_the_outer_5_percent():
    """A draw without a value says nothing and is left out."""
    assert bounds(np.append(np.arange(1001.0), np.nan)) == pytest.approx((25, 975))
