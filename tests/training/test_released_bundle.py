"""A converted checkpoint claims nothing of its scores."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.training.bundles.released_bundle import ANY_ERROR
from tfkt_node.verdict.criteria import UNSURE_CHANCE, chance_beyond


@pytest.mark.parametrize("threshold", [1.5, 2.5])
def test_no_verdict_is_confident(threshold):
    """Whatever the score and the flag's threshold: it may well lie on the other side."""
    for score in np.linspace(0, 4, 81):
        assert chance_beyond(threshold, float(score), ANY_ERROR) > UNSURE_CHANCE
