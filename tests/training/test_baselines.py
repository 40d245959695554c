"""What a network has to beat is as good as it can be, and never sees whom it speaks of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.training.rows import row
from tfkt_node.training.judging.baselines import noise_formula, pooled, ridge, rivals
from tfkt_node.training.simulation.label import SIGMA_AT_4

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(60, 3))
ROWS = [
    row(fold=i % 5, patient=f"p{i}", u=float(2 + x[0] - 0.5 * x[1])) for i, x in enumerate(INPUTS)
]
LABELS = np.array([one.u for one in ROWS])


def test_noise_formula_falls_two_points_with_each_doubling():
    """4 at 24 HU, the middle of the scale where the noise cannot be measured."""
    noise = np.array([SIGMA_AT_4, 2 * SIGMA_AT_4, np.nan, 0.0])

    assert noise_formula(noise).tolist() == [4, 2, 2, 8]


def test_ridge_finds_what_is_linear():
    """Labels that are linear in the inputs are found for patients that were left out."""
    assert ridge(ROWS, INPUTS) == pytest.approx(LABELS, abs=0.15)


def test_ridge_never_sees_the_fold_it_speaks_of():
    """Whatever the labels of a fold are, what is said of it stays the same."""
    changed = [dataclasses.replace(one, u=-one.u) if one.fold == 2 else one for one in ROWS]
    left_out = [one.fold == 2 for one in ROWS]

    before, after = ridge(ROWS, INPUTS), ridge(changed, INPUTS)

    assert np.array_equal(before[left_out], after[left_out])
    assert not np.array_equal(before, after)


def test_ridge_is_not_fitted_to_what_is_only_tested():
    """The filter that is held out teaches nobody."""
    held_out = [dataclasses.replace(one, tested_only=i > 50) for i, one in enumerate(ROWS)]
    changed = [dataclasses.replace(one, u=5.0) if one.tested_only else one for one in held_out]

    assert np.array_equal(ridge(held_out, INPUTS), ridge(changed, INPUTS))


def test_ridge_takes_an_unknown_input_for_its_mean():
    """A slice with too little even tissue still gets a value."""
    inputs = INPUTS.copy()
    inputs[7] = np.nan

    assert ridge(ROWS, inputs)[7] == pytest.approx(LABELS.mean(), abs=0.3)


def test_pooled_are_mean_and_spread_of_each_map():
    """(n, C, rows, columns) becomes (n, 2 C)."""
    maps = np.zeros((70, 2, 4, 4), np.float16)
    maps[:, 0, :2] = 2

    found = pooled(maps)

    assert found.shape == (70, 4)
    assert found[69] == pytest.approx([1, 0, np.log(1.001), np.log(0.001)])


def test_every_rival_speaks_of_every_row():
    """Three baselines, one value a row each."""
    found = rivals(ROWS, INPUTS, INPUTS, INPUTS)

    assert len(found) == 3
    assert all(u.shape == (60,) and np.isfinite(u).all() for u in found.values())
