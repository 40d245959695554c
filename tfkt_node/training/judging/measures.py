"""Agreement between what is meant and what is said, for many bootstrap draws at once.

A draw is a row of weights: an image of weight 2 counts exactly as if it were there twice. A
thousand draws of thousands of images are then one matrix.
"""

from __future__ import annotations

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array


def ranks(values: Float64Array, weights: Float64Array) -> Float64Array:
    """Return the rank of each image in each draw, ties sharing their mean: (k, n), from 1.

    values: (n,). weights: (k, n), whole numbers. An image of weight 0 gets some rank.
    """
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    count = np.add.reduceat(weights[:, order], starts, axis=1)
    rank: Float64Array = (np.cumsum(count, axis=1) - (count - 1) / 2)[:, group]
    return rank


def correlation(a: Float64Array, b: Float64Array, weights: Float64Array) -> Float64Array:
    """Return Pearson's correlation in each draw, (k,); NaN where one of them does not vary.

    a, b: (n,), or (k, n) where they differ from draw to draw. weights: (k, n).
    """
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = a - (weights * a).sum(axis=1, keepdims=True) / total
        b = b - (weights * b).sum(axis=1, keepdims=True) / total
        both = (weights * a * b).sum(axis=1)
        own = (weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)
        found: Float64Array = both / np.sqrt(own)
    return found


def srocc(truth: Float64Array, said: Float64Array, weights: Float64Array) -> Float64Array:
    """Return Spearman's correlation in each draw, (k,); truth, said: (n,), weights: (k, n)."""
    return correlation(ranks(truth, weights), ranks(said, weights), weights)


def once(count: int) -> Float64Array:
    """Return the one draw that holds every image once, (1, count)."""
    return np.ones((1, count))
