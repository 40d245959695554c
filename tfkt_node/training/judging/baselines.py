"""What a network has to beat: noise put into a formula, and ridges on plainer inputs.

Every ridge says of a patient what it learnt from the others: the folds are those of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.training.dataset import Row
from tfkt_node.training.simulation.label import SIGMA_AT_4, U_RANGE

NOISE_FORMULA, NOISE_NUMBERS, IMAGENET = "noise formula", "five noise numbers", "ImageNet ridge"

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Of the ridge, with inputs of variance 1; each fit takes the one that does best among its own
patients."""


def noise_formula(noise_hu: Float64Array) -> Float64Array:
    """Return u = 4 - 2 log2(noise / SIGMA_AT_4) for noise measured on the image itself, (n,).

    It cannot see streaks, and takes smoothing for dose. The middle of the scale where NaN.
    """
    u = 4 - 2 * np.log2(np.clip(noise_hu, 0.1, None) / SIGMA_AT_4)
    return np.asarray(np.clip(np.where(np.isnan(u), sum(U_RANGE) / 2, u), *U_RANGE), np.float64)


def pooled(maps: npt.NDArray[np.floating], batch: int = 64) -> Float64Array:
    """Return mean and log SD of each feature map: (n, C, rows, columns) to (n, 2 C)."""
    parts = []
    for start in range(0, len(maps), batch):
        block = np.asarray(maps[start : start + batch], np.float64)
        spread = np.log(block.std(axis=(2, 3)) + 1e-3)
        parts.append(np.concatenate([block.mean(axis=(2, 3)), spread], axis=1))
    return np.concatenate(parts)


def rivals(
    rows: Sequence[Row], noise: Float64Array, wide: Float64Array, soft: Float64Array
) -> Mapping[str, Float64Array]:
    """Return u of each baseline for every row, (n,), out of fold.

    noise: (n, 5), `noise_numbers`. wide, soft: (n, 2 C) each, `pooled` maps of ImageNet features
    that see the wide and the soft-tissue window.
    """
    return {
        NOISE_FORMULA: noise_formula(np.array([row.noise for row in rows])),
        NOISE_NUMBERS: ridge(rows, noise),
        IMAGENET: ridge(rows, np.concatenate([wide, soft, noise], axis=1)),
    }


def ridge(rows: Sequence[Row], inputs: Float64Array) -> Float64Array:
    """Fit u linearly to inputs, (n, d), without one fold at a time; returns u of that fold, (n,).

    Rows that are tested only are fitted to by none. The penalty of each fit is chosen by the folds
    that it may see, one left out at a time. NaN counts as the mean.
    """
    u = np.array([row.u for row in rows])
    in_fold = np.array([row.fold for row in rows])
    may_fit = np.array([not row.tested_only for row in rows])
    said = np.full(len(rows), np.nan)
    for fold in np.unique(in_fold):
        others = may_fit & (in_fold != fold)
        error = np.zeros(len(PENALTIES))
        for inner in np.unique(in_fold[others]):
            left_out = others & (in_fold == inner)
            tried = _fitted(inputs, u, others & (in_fold != inner), left_out)
            error += ((tried - u[left_out]) ** 2).sum(axis=1)
        tested = in_fold == fold
        said[tested] = _fitted(inputs, u, others, tested)[error.argmin()]
    return np.asarray(np.clip(said, *U_RANGE), np.float64)


def _fitted(
    inputs: Float64Array, u: Float64Array, fit: npt.NDArray[np.bool_], ask: npt.NDArray[np.bool_]
) -> Float64Array:
    """Fit to the rows of `fit` and ask for those of `ask`: (penalties, rows)."""
    middle = np.nanmean(inputs[fit], axis=0)
    spread = np.nanstd(inputs[fit], axis=0) + 1e-6
    x, asked = (np.nan_to_num((inputs[at] - middle) / spread) for at in (fit, ask))
    values, vectors = np.linalg.eigh(x.T @ x)
    turned = vectors.T @ (x.T @ (u[fit] - u[fit].mean()))
    weights = vectors @ (turned[:, None] / (values[:, None] + np.array(PENALTIES)))
    return np.asarray((asked @ weights).T + u[fit].mean(), np.float64)
