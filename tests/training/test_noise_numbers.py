"""Five numbers say how strong noise is, and of which size."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.training.judging.noise_numbers import NAMES, noise_numbers


def body(noise: np.ndarray) -> np.ndarray:
    """A body of soft tissue in air, 160 x 160, with noise in it."""
    rows, columns = np.mgrid[:160, :160]
    inside = np.hypot(rows - 80, columns - 80) < 70
    return np.where(inside, 40 + noise, -1000).astype(np.float32)


WHITE = np.random.default_rng(0).normal(size=(160, 160))


def test_white_noise_is_measured_by_its_sd():
    """SD and second difference of white noise are its SD, less what a low quantile leaves away."""
    found = 2.0 ** noise_numbers(body(20 * WHITE))

    assert found[:2] == pytest.approx([20, 20], rel=0.15)


def test_twice_the_noise_is_one_more():
    """All five are logarithms to the base 2."""
    assert noise_numbers(body(20 * WHITE)) - noise_numbers(body(10 * WHITE)) == pytest.approx(
        np.ones(len(NAMES)), abs=0.02
    )


def test_coarse_noise_is_told_from_fine():
    """Of equal SD, coarse noise is less in the fine band and more in the coarse one."""
    coarse = ndi.gaussian_filter(WHITE, 2)

    change = noise_numbers(body(20 * coarse / coarse.std())) - noise_numbers(body(20 * WHITE))

    assert change[NAMES.index("band of 1 px")] < -1
    assert change[NAMES.index("band of 4 px")] > 1


def test_without_soft_tissue_nothing_is_said():
    """Air has no noise that counts."""
    assert np.isnan(noise_numbers(np.full((160, 160), -1000, np.float32))).all()
