"""The same slice presented otherwise: turned, and with other things around the body.

A patient may lie prone or on a side, tables are cut away by some viewers and scanners, and some
write one value for all air, or beyond a circle: none of it changes the quality of what is read.
"""

from __future__ import annotations

import zlib

import numpy as np
import scipy.ndimage as ndi

from tfkt_node.records import FloatArray
from tfkt_node.training.simulation.tissue import whole_body

FLAT_HU = (-1000.0, -1024.0)
"""What air is written as where it is one value."""

MARGIN_PX = 6
"""Around the body nothing is changed: skin and clothes."""

_TABLE_HU = -850.0
_TABLE_BLUR_PX = 2.0
"""Denser things outside the body than this, once noise is averaged away, are the table."""


def presented(hu: FloatArray) -> FloatArray:
    """Return the slice turned or mirrored, and with other surroundings: (n, n) float32, HU.

    Which of the eight ways and of the four surroundings (as they are, one value beyond the
    inscribed circle, instead of air, or instead of all that is not body) is drawn from the slice
    itself: the same slice is always presented alike.
    """
    rng = np.random.default_rng(zlib.crc32(hu.tobytes()))
    surroundings = (_as_they_are, _circle, _flat_air, _flat)[rng.integers(4)]
    changed = surroundings(hu, np.float32(rng.choice(FLAT_HU)))
    turned = np.rot90(changed, int(rng.integers(4)))
    return np.ascontiguousarray(turned[:, ::-1] if rng.integers(2) else turned, np.float32)


def flat(hu: FloatArray) -> FloatArray:
    """Return the slice with one value instead of all that is not body: air and table."""
    return _flat(hu, np.float32(FLAT_HU[0]))


def _as_they_are(hu: FloatArray, _value: np.float32) -> FloatArray:
    return hu


def _circle(hu: FloatArray, value: np.float32) -> FloatArray:
    row, column = np.indices(hu.shape)
    centre = (np.array(hu.shape) - 1) / 2
    is_inside = np.hypot(row - centre[0], column - centre[1]) <= min(hu.shape) / 2
    return np.where(is_inside, hu, value)


def _flat_air(hu: FloatArray, value: np.float32) -> FloatArray:
    is_table = ndi.gaussian_filter(hu, _TABLE_BLUR_PX) > _TABLE_HU
    return np.where(whole_body(hu, MARGIN_PX) | is_table, hu, value)


def _flat(hu: FloatArray, value: np.float32) -> FloatArray:
    return np.where(whole_body(hu, MARGIN_PX), hu, value)
