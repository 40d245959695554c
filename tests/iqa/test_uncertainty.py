from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfkt_node.iqa.uncertainty import (
    SOFT_END,
    Calibration,
    score,
    series_interval,
    squash,
    unsquash,
)

PLAIN = Calibration(slope=1.0, shift=0.0, below=0.6, above=0.4, coverage=0.9)
QUALITY = st.floats(-20, 20)


@given(QUALITY, QUALITY)
def test_squash_never_falls(a, b):
    """A better slice never gets a lower score, and scores stay in 0..4."""
    low, high = squash(np.array([min(a, b), max(a, b)]))

    assert 0.0 <= low <= high <= 4.0


@given(st.floats(-1, 4.9))
def test_squash_rises_so_that_reports_show_it(u):
    """A tenth of a point of u shows in the four decimals of a score, near the ends too."""
    assert round(float(squash(u + 0.1)), 4) > round(float(squash(u)), 4)


@given(QUALITY)
def test_squash_is_symmetric_about_the_middle(u):
    """Both ends of the scale are bent alike."""
    assert squash(4 - u) == pytest.approx(4 - squash(u), abs=1e-12)


@given(st.floats(-3, 7))
def test_squash_has_no_kink(u):
    """Value and slope have no step; the slope is never above 1."""
    step = 1e-3
    before, here, after = squash(np.array([u - step, u, u + step]))

    assert after - here <= step * (1 + 1e-9)
    assert abs((after - here) - (here - before)) <= 1 / SOFT_END * step**2 * 1.01


@pytest.mark.parametrize(
    ("u", "expected"),
    [(-4, 0), (0, 0.0892), (0.25, 0.25), (2, 2), (3.75, 3.75), (4, 3.9108), (8, 4), (1e9, 4)],
)
def test_squash_leaves_the_middle_as_it_is(u, expected):
    """The middle of the scale is left as it is; 0 and 4 are reached."""
    assert squash(u) == pytest.approx(expected, abs=1e-4)


@given(st.floats(0, 4))
def test_unsquash_turns_a_score_back(value):
    """What a reader scored is put on the open scale, and comes back as the same score."""
    assert squash(unsquash(value)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("value", "expected"), [(0, -4), (2, 2), (3.9108, 4), (4, 8), (9, 8)])
def test_unsquash_is_the_inverse_of_squash(value, expected):
    """The middle stays as it is, the ends of the scale are those of u."""
    assert unsquash(value) == pytest.approx(expected, abs=1e-4)


@given(QUALITY, st.floats(0, 4), st.floats(0, 4))
def test_interval_holds_the_score(u, below, above):
    """low <= score <= high, all in 0..4, with 4 decimals: audit, JSON and report agree exactly."""
    value, (low, high) = score(Calibration(1.3, -0.2, below, above, 0.9), u)

    assert 0.0 <= low <= value <= high <= 4.0
    for number in (value, low, high):
        assert number == round(number, 4)


def test_calibration_is_applied_before_the_squash():
    """score = squash(shift + slope u); the widths reach under and over the score."""
    assert score(Calibration(2.0, -1.0, 0.6, 0.4, 0.9), 1.5) == (2.0, (1.4, 2.4))
    assert score(PLAIN, 1e9) == (4.0, (3.4, 4.0))


@pytest.mark.parametrize("u", [np.nan, np.inf, -np.inf])
def test_no_score_is_invented(u):
    """P6: what is not a number gets no score, not the end of the scale."""
    with pytest.raises(ValueError, match="finite"):
        score(PLAIN, u)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slope": 0.0},
        {"slope": np.nan},
        {"below": -0.1},
        {"above": np.nan},
        {"coverage": 1.0},
        {"errors": (0.1,)},
        {"errors": (0.2, 0.1)},
        {"errors": (0.1, np.nan)},
        {"series": (0.1,)},
        {"series": (-0.1, 0.1)},
        {"series": (0.1, np.nan)},
    ],
)
def test_calibration_refuses_what_would_turn_scores_round(wrong):
    """A slope of 0 or below, a negative width or falling quantiles are an error of the card."""
    values = {"slope": 1.0, "shift": 0.0, "below": 0.5, "above": 0.5, "coverage": 0.9}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Calibration(**{**values, **wrong})


def test_without_errors_of_a_series_the_interval_stands_for_them():
    """A card that was written before it had them still says how sure a verdict is."""
    assert PLAIN.errors == (-0.6, 0.4)
    assert series_interval(PLAIN, 2.0) == (1.4, 2.4)


@given(st.floats(0, 4), st.floats(0, 4), st.floats(0, 4))
def test_interval_of_a_series_is_its_own(value, below, above):
    """Its ends come from errors of series, not of slices, and stay in 0..4 with 4 decimals."""
    known = Calibration(1.0, 0.0, 4.0, 4.0, 0.9, series=(below, above))

    low, high = series_interval(known, value)

    assert low == round(max(value - below, 0), 4)
    assert high == round(min(value + above, 4), 4)
