"""What a network has to beat: noise put into a formula, and a ridge on pooled features."""

from __future__ import annotations

import numpy as np

from tfkt_node.training.collection import Part
from tfkt_node.training.dataset import Dataset, HalfArray
from tfkt_node.training.label import SIGMA_AT_4, U_RANGE
from tfkt_node.training.measures import Float64Array

RIDGE_PENALTY = 30.0


def noise_formula(noise_hu: Float64Array) -> Float64Array:
    """Return u = 4 - 2 log2(noise / SIGMA_AT_4) for noise measured on the image itself, (n,).

    It cannot see streaks, and takes smoothing for dose.
    """
    u = 4 - 2 * np.log2(np.clip(noise_hu, 0.1, None) / SIGMA_AT_4)
    return np.asarray(np.clip(np.where(np.isnan(u), sum(U_RANGE) / 2, u), *U_RANGE), np.float64)


def ridge(dataset: Dataset) -> Float64Array:
    """Fit u linearly to mean and log SD of each feature map; returns u for every row.

    Fitted on the training patients only.
    """
    inputs = _pooled(dataset.maps)
    u = np.array([row.u for row in dataset.rows])
    train = dataset.part(Part.TRAIN)
    middle, spread = inputs[train].mean(0), inputs[train].std(0) + 1e-6
    inputs = (inputs - middle) / spread
    x, y = inputs[train], u[train] - u[train].mean()
    weights = np.linalg.solve(x.T @ x + RIDGE_PENALTY * np.eye(x.shape[1]), x.T @ y)
    return np.asarray(inputs @ weights + u[train].mean(), np.float64)


def _pooled(maps: HalfArray, batch: int = 64) -> Float64Array:
    parts = []
    for start in range(0, len(maps), batch):
        block = np.asarray(maps[start : start + batch], np.float64)
        spread = np.log(block.std(axis=(2, 3)) + 1e-3)
        parts.append(np.concatenate([block.mean(axis=(2, 3)), spread], axis=1))
    return np.concatenate(parts)
