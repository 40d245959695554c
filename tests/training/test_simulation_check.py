"""The simulated quarter dose looks like the true one."""

from __future__ import annotations

import pytest

from tfkt_node.training.simulation.simulation_check import table


@pytest.fixture(scope="module")
def rows(shared_data):
    return table(shared_data)


@pytest.mark.station
def test_a_simulated_quarter_dose_is_as_noisy_as_the_true_one(rows):
    """On all seven pairs: the SD that a quarter of the dose adds within 10 %, and no bias."""
    assert len(rows) == 7
    for row in rows:
        assert row.simulated == pytest.approx(row.real, rel=0.1)
        assert abs(row.bias) < 1


@pytest.mark.station
def test_its_noise_has_the_true_grain_and_place(rows):
    """The noise power spectrum is within 0.25 of its peak, maps of local SD correlate above 0.7."""
    for row in rows:
        assert row.spectrum < 0.25
        assert row.maps > 0.7
        assert row.simulated_spread == pytest.approx(row.real_spread, abs=0.15)
