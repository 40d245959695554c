"""How far a slice lies from those that the model was trained on, by what the network sees of it.

The last gate of the scope, after header and pixels: for what no rule has thought of. Numpy only;
a bundle carries its own as `scope.npz`.
Source of the idea: Lee et al., NeurIPS 2018 (Mahalanobis distance in feature space).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.records import FloatArray

AXES = 16
"""Principal axes, most; what lies outside them counts with one spread for all."""

LEFT_OUT_SHARE = 0.98
"""Share of left-out patients' slices that the threshold keeps in each quarter of the quality, each
patient counting as one."""

FOLDS = 5


@dataclass(frozen=True, slots=True)
class FeatureDistance:
    """Distance in a space where in-scope slices are a round cloud of radius 1.

    mean, scale: (C,), of each feature over patients. axes: (C, k), orthonormal columns.
    spread: (k,), standard deviation along each axis. rest: the same of all other directions.
    threshold: slices beyond it are out of scope.
    """

    mean: Float64Array
    scale: Float64Array
    axes: Float64Array
    spread: Float64Array
    rest: Float64Array
    threshold: Float64Array

    def distance(self, vectors: FloatArray) -> Float64Array:
        """Map pooled vectors, (n, C), to distances, (n,): about 1 in scope.

        Root of the mean square over all C directions, each in units of its own spread; so that it
        does not depend on C. Infinite where a value is not finite.
        """
        is_sound = np.asarray(np.isfinite(vectors).all(axis=1), bool)
        z = (np.where(is_sound[:, None], vectors, 0).astype(np.float64) - self.mean) / self.scale
        along = z @ self.axes
        beside = np.square(z).sum(axis=1) - np.square(along).sum(axis=1)
        square = np.square(along / self.spread).sum(axis=1) + beside / self.rest**2
        return np.where(is_sound, np.sqrt(np.maximum(square, 0) / z.shape[1]), np.inf)

    def is_outside(self, vectors: FloatArray) -> Sequence[bool]:
        """Say for each vector of (n, C) whether it lies beyond the threshold."""
        distance = self.distance(vectors)
        outside: list[bool] = ((distance > self.threshold) | np.isinf(distance)).tolist()
        return outside

    def save(self, path: Path) -> None:
        """Write an .npz without pickles; the same arrays give the same bytes."""
        np.savez(path, **asdict(self))


def load(path: Path) -> FeatureDistance:
    """Read what `save` wrote. Raises ValueError or KeyError where it is anything else."""
    with np.load(path, allow_pickle=False) as arrays:
        found = FeatureDistance(**{name: arrays[name] for name in FeatureDistance.__slots__})
    c, k = found.mean.shape, found.spread.shape
    shapes = [value.shape for value in asdict(found).values()]
    if (len(c), len(k)) != (1, 1) or shapes != [c, c, c + k, k, (), ()]:
        raise ValueError(f"{path.name}: the arrays do not fit one another: {shapes}")
    return found


def unlimited(channels: int) -> FeatureDistance:
    """Return a distance beyond which lies nothing but what is not finite.

    For a network whose training is not known: header and pixels alone tell its scope then.
    """
    none, one = np.empty(0), np.array(1.0)
    return FeatureDistance(
        np.zeros(channels), np.ones(channels), np.empty((channels, 0)), none, one, np.array(np.inf)
    )


def fit(vectors: FloatArray, patients: Sequence[str], quality: Sequence[float]) -> FeatureDistance:
    """Fit to in-scope slices: pooled vectors, (n, C), the patient and the quality of each.

    Low-dose, streaked and smoothed versions belong to them: scope is not quality. Every patient
    weighs the same. The threshold comes from patients left out of the fit, in five folds: it keeps
    the share of each quarter of the quality, for the worst slices, which the node is there to find,
    vary the most. Raises ValueError for fewer than 10 patients, or shapes that do not fit.
    """
    names, patient = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2 * FOLDS or vectors.ndim != 2 or len(vectors) != len(patient):
        raise ValueError(
            f"expected vectors (n, C) of n slices and at least {2 * FOLDS} patients: "
            f"got {vectors.shape} and {len(names)} patients of {len(patient)} slices"
        )
    values = np.asarray(vectors, np.float64)
    weight = (1.0 / np.bincount(patient))[patient]
    distances = np.empty(len(values))
    for fold in range(FOLDS):
        out = patient % FOLDS == fold
        distances[out] = _fitted(values[~out], weight[~out], 0.0).distance(values[out])
    quarter = np.digitize(quality, np.quantile(quality, [0.25, 0.5, 0.75]))
    thresholds = [
        _quantile(distances[quarter == one], patient[quarter == one], LEFT_OUT_SHARE)
        for one in np.unique(quarter)
    ]
    return _fitted(values, weight, max(thresholds))


def _fitted(values: Float64Array, weight: Float64Array, threshold: float) -> FeatureDistance:
    share = weight / weight.sum()
    mean = share @ values
    # A feature that never varies tells nothing, and must not divide by zero.
    scale = np.maximum(np.sqrt(share @ np.square(values - mean)), 1e-6)
    z = (values - mean) / scale
    variance, axes = np.linalg.eigh((z * share[:, None]).T @ z)
    kept = min(AXES, len(variance) - 1)
    rest = max(float(np.mean(variance[:-kept])), 1e-6)
    spread = np.sqrt(np.maximum(variance[-kept:], rest))
    return FeatureDistance(
        mean, scale, axes[:, -kept:], spread, np.array(np.sqrt(rest)), np.array(threshold)
    )


def _quantile(values: Float64Array, patient: npt.NDArray[np.intp], share: float) -> float:
    """Return the value that a share of the patients' values reaches, each patient weighing 1."""
    weight = (1.0 / np.bincount(patient).clip(1))[patient]
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][np.searchsorted(reached, share)])
