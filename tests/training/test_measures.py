"""Measures say what their names say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfkt_node.training.collection import Part
from tfkt_node.training.dataset import Row
from tfkt_node.training.measures import (
    agreement,
    falls_with_dose,
    gains_by_smoothing,
    half_width,
    order_of_halves,
)

CLEAN = Row(
    file="a.png",
    patient="a",
    part=Part.TEST,
    region="chest",
    kind="clean",
    draw=0,
    kernel="soft",
    dose=1.0,
    detail="",
    own=10.0,
    inserted=0.0,
    streaks=0.0,
    transfer=(1.0, 1.0, 1.0),
    u=6.0,
    source_u=6.0,
)


def rows(*kinds: tuple[str, float]) -> list[Row]:
    return [dataclasses.replace(CLEAN, kind=kind, dose=dose) for kind, dose in kinds]


DOSES = rows(("clean", 1), ("dose", 1 / 2), ("dose", 1 / 4), ("dose", 1 / 8), ("dose", 1 / 10))


def test_falling_scores_must_fall_strictly():
    """Full, half, quarter and tenth of the dose: a tie is not a fall."""
    assert falls_with_dose(DOSES, np.array([3.9, 3.8, 3.1, 2.2, 2.0])) == 1
    assert falls_with_dose(DOSES, np.array([4.0, 4.0, 3.1, 2.2, 2.0])) == 0
    assert falls_with_dose(DOSES, np.array([3.9, 3.8, 3.1, 2.2, 3.2])) == 0


def test_order_counts_steps_of_a_factor_two():
    """Of the three halvings here one is in the wrong order; the tenth is no halving."""
    assert order_of_halves(DOSES, np.array([6, 5, 5.5, 3, 9.0])) == pytest.approx(2 / 3)


def test_smoothing_is_compared_at_equal_dose():
    """A smoothed slice is held against the unsmoothed one of the same dose."""
    some = rows(("clean", 1), ("dose", 1 / 4), ("smoothed", 1), ("smoothed", 1 / 4))

    above, change = gains_by_smoothing(some, np.array([6, 4, 5.5, 4.5]))

    assert (above, change) == (0.5, 0.0)


def test_agreement_of_equal_values_is_perfect():
    """Equal values correlate and have no error; two values correlate with nothing."""
    same = agreement(np.arange(5.0), np.arange(5.0))

    assert (same.n, same.mae) == (5, 0)
    assert same.srocc == pytest.approx(1)
    assert same.plcc == pytest.approx(1)
    assert np.isnan(agreement(np.arange(2.0), np.arange(2.0)).srocc)


def test_interval_counts_patients_not_slices():
    """A patient with many slices weighs no more than one with a single slice."""
    one_each = [dataclasses.replace(CLEAN, patient=f"p{i}") for i in range(9)]
    many = one_each + [dataclasses.replace(CLEAN, patient="p0")] * 500
    error = np.arange(1.0, 10.0)

    assert half_width(one_each, error, 0.8, seed=0) == 8
    assert half_width(many, np.concatenate([error, np.full(500, 1.0)]), 0.8, seed=0) == 8


def test_too_few_patients_give_no_interval():
    """Nine patients are needed for 90 %: with eight the interval is the whole scale."""
    eight = [dataclasses.replace(CLEAN, patient=f"p{i}") for i in range(8)]

    assert half_width(eight, np.ones(8), 0.9, seed=0) == np.inf
