"""What smoothing takes away is measured, not assumed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.training.simulation.smoothing import SMOOTHERS, transfer

BLOBS = ((1.0, 60.0), (2.0, 40.0), (4.0, 25.0))
EVEN = np.zeros((240, 240), bool)
EVEN[30:210, 30:210] = True


def noise(seed: int = 0) -> np.ndarray:
    field = np.random.default_rng(seed).standard_normal((240, 240))
    return (50 + 20 * field).astype(np.float32)


def test_nothing_done_keeps_everything():
    """Without smoothing every blob survives whole."""
    hu = noise()

    assert transfer(lambda x: x, hu, hu, EVEN, BLOBS) == pytest.approx((1, 1, 1))


def test_transfer_of_a_gaussian_is_what_theory_says():
    """A Gaussian of sigma s leaves 2 w^2 / (2 w^2 + s^2) of a blob of width w, read with w."""
    hu = noise()
    strength = 1.5

    def smooth(x):
        return ndi.gaussian_filter(x, strength)

    left = transfer(smooth, hu, smooth(hu), EVEN, BLOBS)

    expected = [2 * w**2 / (2 * w**2 + strength**2) for w, _ in BLOBS]
    assert left == pytest.approx(expected, abs=0.03)


def test_no_even_tissue_is_no_loss():
    """Where no blob can be read nothing is claimed to be lost."""
    hu = noise()

    assert transfer(lambda x: x * 0, hu, hu * 0, EVEN & False, BLOBS) == (1, 1, 1)


@pytest.mark.station
@pytest.mark.parametrize("name", SMOOTHERS)
def test_strength_goes_from_mild_to_heavy(name, require_module):
    """More strength leaves less noise, and less of small detail: mild keeps most of it."""
    require_module("skimage")
    hu = noise()
    left = []
    for strength in (0.6, 1.4):

        def smooth(x, strength=strength):
            return np.asarray(SMOOTHERS[name](x, 20.0, strength), np.float32)

        smoothed = smooth(hu)
        kept = transfer(smooth, hu, smoothed, EVEN, BLOBS)
        left.append((smoothed[EVEN].std(), kept[0]))

    (mild_noise, mild_detail), (heavy_noise, heavy_detail) = left
    assert heavy_noise < 0.75 * mild_noise
    assert heavy_detail < mild_detail - 0.1
    assert heavy_detail < 0.65


@pytest.mark.station
@pytest.mark.parametrize(
    "name", ["total_variation", "non_local_means", "bilateral", "diffusion", "wiener"]
)
def test_edge_keeping_filters_keep_edges(name, require_module):
    """An edge of ten times the noise stays sharper than under a Gaussian of that strength."""
    require_module("skimage")
    step = np.where(np.arange(240) < 120, 0, 200).astype(np.float32) + noise() - 50

    def across(smoothed):
        return smoothed[:, 120].mean() - smoothed[:, 119].mean()

    kept = across(np.asarray(SMOOTHERS[name](step, 20.0, 1.0)))
    assert kept > 1.3 * across(SMOOTHERS["gaussian"](step, 20.0, 1.0))


@pytest.mark.station
@pytest.mark.parametrize("name", SMOOTHERS)
def test_every_smoother_lowers_noise_and_small_detail(name, require_module):
    """Each filter lowers noise, keeps the mean, and takes more of small things than of large."""
    require_module("skimage")
    hu = noise()

    def smooth(x):
        return np.asarray(SMOOTHERS[name](x, 20.0, 1.0), np.float32)

    smoothed = smooth(hu)
    left = transfer(smooth, hu, smoothed, EVEN, BLOBS)

    assert smoothed[EVEN].std() < 0.7 * hu[EVEN].std()
    assert smoothed[EVEN].mean() == pytest.approx(50, abs=1)
    assert left[0] < left[2]
