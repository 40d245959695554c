"""The readers' scale: one constant, kept in the card apart from the weights.

The label counts noise by its grain; readers were shown noise of one grain. What that is worth in
points is one shift of u, set on the six anchors. Their errors are then no evidence; what is left
when each is left out in turn says a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array, squash
from tfkt_node.training.dataset import Row

_SHIFTS = np.arange(-30, 31) * 0.05


def shift_to_readers(u: Float64Array, readers: Float64Array) -> float:
    """Return what to add to u so that scores miss readers' scores least on average; (n,) each.

    The smallest of equals, in steps of 0.05, at most 1.5.
    """
    missed = np.abs(squash(u + _SHIFTS[:, None]) - readers).mean(axis=1)
    best = np.flatnonzero(missed < missed.min() + 1e-6)
    return round(float(_SHIFTS[best[np.abs(_SHIFTS[best]).argmin()]]), 4)


def left_out(u: Float64Array, readers: Float64Array) -> Float64Array:
    """Return the score of each image with the shift set on the others, (n,)."""
    others = ~np.eye(len(u), dtype=bool)
    shifts = [shift_to_readers(u[keep], readers[keep]) for keep in others]
    return squash(u + np.array(shifts))


def shifted(rows: Sequence[Row], shift: float) -> list[Row]:
    """Return rows whose labels lie on the readers' scale."""
    return [replace(row, u=row.u + shift, source_u=row.source_u + shift) for row in rows]
