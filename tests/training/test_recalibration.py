"""The shift to the readers' scale is set on anchors, and says what it is worth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rows import row
from tfkt_node.training.judging.recalibration import left_out, shift_to_readers, shifted

READERS = np.array([0.5, 1.0, 2.0, 3.0, 3.5])


@given(st.integers(-25, 25))
def test_shift_brings_back_what_was_added(steps):
    """Scores that are off by a constant are put right by it."""
    assert shift_to_readers(READERS + 0.05 * steps, READERS) == pytest.approx(-0.05 * steps)


def test_nothing_is_shifted_without_need():
    """Of equal shifts the smallest is taken."""
    assert shift_to_readers(np.array([7.9, 7.5]), np.array([4.0, 4.0])) == 0


def test_an_odd_image_is_not_explained_by_itself():
    """Left out, an image that is off by a point stays off by a point."""
    u = READERS.copy()
    u[2] += 1

    assert abs(left_out(u, READERS)[2] - READERS[2]) == pytest.approx(1)


def test_labels_move_along():
    """Labels and what smoothed versions were made from are on the same scale."""
    moved = shifted([row(u=3.0, source_u=3.5)], -0.4)

    assert (moved[0].u, moved[0].source_u) == (2.6, 3.1)
