"""Measures of agreement between labels and what a model says, for rows of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfkt_node.training.dataset import Row

Float64Array = npt.NDArray[np.float64]

FALLING_DOSES = (1.0, 1 / 2, 1 / 4, 1 / 10)
"""Doses at which the score of one slice must fall strictly."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well n predictions agree with their labels; MAE in points of what was compared.

    srocc, plcc: rank and linear correlation, NaN for fewer than three versions.
    """

    n: int
    srocc: float
    plcc: float
    mae: float


def agreement(truth: Float64Array, said: Float64Array) -> Agreement:
    """Compare labels with predictions, (n,) each."""
    from scipy.stats import pearsonr, spearmanr

    mae = float(np.abs(truth - said).mean()) if len(truth) else float("nan")
    if len(truth) < 3:
        return Agreement(len(truth), float("nan"), float("nan"), mae)
    return Agreement(
        len(truth),
        float(spearmanr(truth, said).statistic),
        float(pearsonr(truth, said).statistic),
        mae,
    )


def order_of_halves(rows: Sequence[Row], u: Float64Array) -> float:
    """Return the share of dose steps of a factor 2 that are put in the right order, 0..1."""
    right = []
    for doses in _by_dose(rows, u):
        for dose, value in doses.items():
            if dose / 2 in doses:
                right.append(value > doses[dose / 2])
    return float(np.mean(right))


def falls_with_dose(rows: Sequence[Row], score: Float64Array) -> float:
    """Return the share of slices whose score falls strictly over FALLING_DOSES, 0..1.

    score: as reported. Each noise realisation of a slice counts as one.
    """
    right = [
        bool(np.all(np.diff([doses[dose] for dose in FALLING_DOSES]) < 0))
        for doses in _by_dose(rows, score)
    ]
    return float(np.mean(right))


def gains_by_smoothing(rows: Sequence[Row], u: Float64Array) -> tuple[float, float]:
    """Compare smoothed versions with unsmoothed ones of the same slice, kernel and dose.

    Returns the share that is put above, and the mean change of u in points; the labels of all
    are below.
    """
    unsmoothed = {
        (row.file, row.draw if row.dose < 1 else 0, row.dose): value
        for row, value in zip(rows, u, strict=True)
        if row.kind in ("dose", "clean")
    }
    change = [
        value - unsmoothed[row.file, row.draw if row.dose < 1 else 0, row.dose]
        for row, value in zip(rows, u, strict=True)
        if row.kind == "smoothed"
    ]
    return float(np.mean(np.array(change) > 0)), float(np.mean(change))


def half_width(
    rows: Sequence[Row], error: Float64Array, coverage: float, seed: int, rounds: int = 1000
) -> float:
    """Return the half-width of a split conformal interval, exchangeable by patient.

    error: |true - said|, (n,), of calibration patients. Each round draws one version of each
    patient and takes the ceil((n + 1) coverage)-th smallest error; the median over the rounds is
    returned. Infinity for too few patients.
    Source: Vovk et al., Algorithmic Learning in a Random World (2005), split by patient.
    """
    patients = sorted({row.patient for row in rows})
    rank = int(np.ceil((len(patients) + 1) * coverage))
    if rank > len(patients):
        return float("inf")
    names = np.array([row.patient for row in rows])
    own = [error[names == patient] for patient in patients]
    rng = np.random.default_rng(seed)
    widths = [sorted(rng.choice(e) for e in own)[rank - 1] for _ in range(rounds)]
    return float(np.median(widths))


def _by_dose(rows: Sequence[Row], values: Float64Array) -> list[dict[float, float]]:
    """Give each slice and realisation its value at each dose, the slice itself at dose 1."""
    clean = {r.file: v for r, v in zip(rows, values, strict=True) if r.kind == "clean"}
    series: dict[tuple[str, int], dict[float, float]] = {}
    for row, value in zip(rows, values, strict=True):
        if row.kind == "dose":
            doses = series.setdefault((row.file, row.draw), {1.0: float(clean[row.file])})
            doses[row.dose] = float(value)
    return list(series.values())
