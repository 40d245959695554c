"""What a score must do is counted over the pairs that it is about."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.rows import doses, row
from tfkt_node.training.judging.behaviour import (
    child_differences,
    order_of_dose,
    smoothing,
    smoothing_by_filter,
)


def test_order_is_asked_of_doses_a_factor_two_apart():
    """Of three doses two pairs are asked about: 1 and 0.55 are too close."""
    rows = doses(1, 0.55, 0.275)

    right = order_of_dose(rows, np.array([6.0, 4, 5]))

    assert right.tolist() == [1, 0]  # (1, 0.275) and (0.55, 0.275)


def test_order_is_asked_within_a_slice_and_equal_is_wrong():
    """Another slice's doses, and versions that differ in more than dose, are no pair."""
    rows = [*doses(1, 0.5), *doses(0.25, file="b.png"), row(kind="views", dose=0.1)]

    assert order_of_dose(rows, np.array([4.0, 4, 9, 9])).tolist() == [0]


@pytest.mark.parametrize("jitter", [1.1, 0.83, 1.2199])
def test_a_factor_two_survives_rounding(jitter):
    """Doses are stored as multiplied: a factor of 2 in between still counts."""
    rows = doses(*(dose * jitter for dose in (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)))

    assert order_of_dose(rows, np.zeros(5)).shape == (10,)


def test_smoothing_is_held_against_the_same_noise():
    """Gains over 0.1 point are counted, over the source of the same slice and dose."""
    rows = [
        *doses(1, 0.25),
        *doses(1, 0.25, file="b.png"),
        row(kind="smoothed", dose=1.0),
        row(kind="smoothed", dose=0.25),
        row(kind="smoothed", dose=0.25, file="b.png"),
        row(kind="smoothed", dose=0.25, tested_only=True),
    ]
    scores = np.array([3.0, 2, 1, 1.5, 3.05, 2.2, 1.35, 1.0])

    fitted = smoothing(rows, scores, tested_only=False)
    tested = smoothing(rows, scores, tested_only=True)

    assert (fitted.mean, fitted.gained) == pytest.approx(((0.05 + 0.2 - 0.15) / 3, 1 / 3))
    assert (tested.mean, tested.gained) == (-1, 0)


def test_each_filter_answers_for_itself():
    """One that gains is not hidden behind one that loses."""
    rows = [
        *doses(1, 0.25),
        row(kind="smoothed", dose=0.25, detail="wiener 0.80"),
        row(kind="smoothed", dose=0.25, detail="median 1.10", tested_only=True),
    ]

    found = smoothing_by_filter(rows, np.array([3.0, 2.0, 1.5, 2.5]))

    assert {name: one.mean for name, one in found.items()} == {"median": 0.5, "wiener": -0.5}


def test_without_smoothed_versions_nothing_is_claimed():
    """No figure is made of nothing."""
    assert np.isnan(smoothing(doses(1, 0.5), np.zeros((1, 2)), tested_only=True).mean)


def test_child_is_held_against_the_adult_of_nearest_label():
    """Within a quarter of a point; what the labels still differ by is taken off."""
    rows = [
        row(u=3.0),
        row(kind="dose", dose=0.5, u=2.0),
        row(kind="child", u=2.2),
        row(kind="child", u=2.5),  # as far from both
        row(kind="child", u=3.0, file="b.png"),  # of a slice without an adult
    ]
    labels = np.array([one.u for one in rows])
    scores = np.array([3.0, 2.1, 2.8, 0, 0])

    assert child_differences(rows, scores, labels) == pytest.approx(np.array([0.5]))
