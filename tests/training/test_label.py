"""The label falls with dose and streaks, and smoothing never raises it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfkt_node.training.simulation.label import (
    LOSS_POINTS,
    SIGMA_AT_4,
    U_RANGE,
    Known,
    band_sigma,
    quality,
)

SIGMA = st.floats(3, 150)


def test_four_is_where_readers_stop_asking_for_more():
    """24 HU of noise is 4; half the dose one point less; twice the dose one point more."""
    assert quality(Known(SIGMA_AT_4)) == pytest.approx(4)
    assert quality(Known(SIGMA_AT_4, inserted=SIGMA_AT_4)) == pytest.approx(3)
    assert quality(Known(SIGMA_AT_4 / 2**0.5)) == pytest.approx(5)


@given(SIGMA, st.floats(0.1, 150), st.floats(1.05, 4))
def test_more_noise_is_never_better(own, inserted, factor):
    """The label falls strictly with inserted noise, down to the end of its range."""
    less, more = quality(Known(own, inserted)), quality(Known(own, inserted * factor))

    assert more < less or more == U_RANGE[0] or less == U_RANGE[1]


@given(SIGMA, st.floats(10, 100))
def test_streaks_cost_more_than_noise_of_the_same_strength(own, sigma):
    """A streak field weighs more than a noise field of equal SD, at most one point."""
    noise, streaks = quality(Known(own, inserted=sigma)), quality(Known(own, streaks=sigma))

    assert noise - 1.0001 <= streaks <= noise


@given(SIGMA, st.tuples(*[st.floats(0, 1)] * 3))
def test_smoothing_never_gains(own, transfer):
    """A smoothed slice is at most as good as its noisy source, at most LOSS_POINTS worse."""
    source, smoothed = quality(Known(own)), quality(Known(own, transfer=transfer))

    assert source - LOSS_POINTS - 1e-4 <= smoothed <= source


def test_coarse_grain_weighs_more_than_fine():
    """At equal SD, grain that hides larger things counts more."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((200, 200)).astype(np.float32)
    coarse = np.kron(rng.standard_normal((100, 100)), np.ones((2, 2))).astype(np.float32)
    even = np.zeros(white.shape, bool)
    even[40:160, 40:160] = True

    assert band_sigma(coarse, even, 0) > 1.15 * band_sigma(white, even, 0)


def test_streaks_in_one_corner_leave_the_rest_readable():
    """Places count by their quality: the same power in one corner costs less than spread out."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((200, 200)).astype(np.float32)
    corner = np.zeros_like(spread)
    corner[:100, :100] = 2 * spread[:100, :100]
    even = np.ones(spread.shape, bool)

    assert 0 < band_sigma(10 * corner, even, 5.0) < 0.8 * band_sigma(10 * spread, even, 5.0)
