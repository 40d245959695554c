"""Bootstrap by patient: slices and versions of one patient are no independent evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array

DRAWS = 1000
LEVEL = 0.95
MIN_PATIENTS = 8
"""With fewer, no interval is claimed."""


def draws(patients: Sequence[str], seed: int, count: int = DRAWS) -> Float64Array:
    """Draw as many patients as there are, with replacement: weights of the rows, (count, n).

    patients: whose each row is. The same seed gives the same draws. Comparing two models on the
    same draws makes the comparison paired. Draws go by the place of a patient among the sorted
    names: what is averaged over other patients (another fold) needs a seed of its own.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), for clusters.
    """
    names, place = np.unique(np.array(patients, dtype=str), return_inverse=True)
    even = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), even, size=count)
    return np.asarray(drawn[:, place], np.float64)


def bounds(values: Float64Array) -> tuple[float, float]:
    """Return the lower and upper bound of a LEVEL interval over the draws, by percentiles."""
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
