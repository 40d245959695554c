"""How sure a score is: errors on held-out patients become an interval, and a chance.

Cross-conformal by patient: every error comes from a network that never saw the patient, and a
patient counts once however many slices there are. It covers the computed label, not readers.
Sources: Vovk, Annals of Mathematics and Artificial Intelligence 74 (2015), cross-conformal
predictors; one error a patient drawn many times: Dunn et al., JASA 118 (2023), subsampling once
made stable by its repeats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfkt_node.iqa.uncertainty import HIGHEST, LOWEST, Calibration, Float64Array, squash
from tfkt_node.training.dataset import Row
from tfkt_node.training.judging import bootstrap
from tfkt_node.verdict.criteria import UNSURE_CHANCE, chance_beyond

DRAWS = 1000

QUANTILES = 21
"""Errors of a series that a card keeps: every 5 %."""

DECIDED = (1.0, 3.5)
"""Scores about the thresholds of verdicts. Near 0 and 4 the bent scale leaves little room for
errors, which must not make those in the middle look small."""


@dataclass(frozen=True, slots=True)
class Errors:
    """True less given scores on held-out patients, and whose they are; (n,) each."""

    error: Float64Array
    given: Float64Array
    patient: npt.NDArray[np.str_]
    fold: npt.NDArray[np.intp]
    region: npt.NDArray[np.str_]

    def at(self, chosen: npt.NDArray[np.bool_]) -> Errors:
        """Return some of them."""
        return Errors(
            self.error[chosen],
            self.given[chosen],
            self.patient[chosen],
            self.fold[chosen],
            self.region[chosen],
        )


def slice_errors(rows: Sequence[Row], u: Float64Array) -> Errors:
    """Return the error of each version; u: (n,), out of fold."""
    given = squash(u)
    true = squash([row.u for row in rows])
    return Errors(
        true - given,
        given,
        np.array([row.patient for row in rows]),
        np.array([row.fold for row in rows]),
        np.array([row.region for row in rows]),
    )


def series_errors(rows: Sequence[Row], u: Float64Array) -> Errors:
    """Return the proxy of a series: the mean error of a patient's versions that one scan could be.

    No whole series is simulated: of many patients there is one slice, and slices of a series are
    more alike than these.
    """
    errors = slice_errors(rows, u)
    keys = np.stack([errors.patient, [_scan(row) for row in rows]], axis=1)
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    place = place.ravel()
    count = np.bincount(place)
    return Errors(
        np.bincount(place, errors.error) / count,
        np.bincount(place, errors.given) / count,
        errors.patient[first],
        errors.fold[first],
        errors.region[first],
    )


def _scan(row: Row) -> str:
    """Name what slices of one scan share: kind, dose, and views, filter or artefact.

    Dose and views within a factor 2, since each slice drew its own. An image that readers scored
    is by itself.
    """
    what, _, rest = row.detail.partition(" ")
    if rest.startswith("views"):
        what = f"{_step(float(what))} {rest}"
    return f"{row.kind} {_step(row.dose)} {what}"


def _step(value: float) -> int | None:
    return round(math.log2(value)) if math.isfinite(value) else None


def calibrate(
    rows: Sequence[Row], u: Float64Array, coverage: float, seed: int, shift: float
) -> Calibration:
    """Set the intervals of a slice and of a series, and its errors; u: (n,), out of fold.

    rows, u: on the readers' scale, to which `shift` brings what the network says.
    """
    below, above = interval(slice_errors(rows, u), coverage, seed)
    series = series_errors(rows, u)
    return Calibration(
        slope=1.0,
        shift=shift,
        below=round(below, 4),
        above=round(above, 4),
        coverage=coverage,
        series=tuple(round(length, 4) for length in interval(series, coverage, seed)),
        errors=quantiles(series, seed),
    )


def interval(errors: Errors, coverage: float, seed: int) -> tuple[float, float]:
    """Return how far an interval reaches below and above a score, in points, cut at 4.

    Each round draws one error of each patient; of n, sorted, the floor((n + 1) (1 - coverage) / 2)-
    th smallest and largest are the ends; the median over the rounds is returned. The whole scale
    for too few patients.
    """
    drawn = np.sort(_one_of_each(errors, seed), axis=1)
    place = int(np.floor((drawn.shape[1] + 1) * (1 - coverage) / 2 + 1e-9)) - 1
    if place < 0:
        return HIGHEST - LOWEST, HIGHEST - LOWEST
    low, high = np.median(drawn[:, place]), np.median(drawn[:, -1 - place])
    return float(max(-low, 0.0)), float(max(high, 0.0))


def quantiles(errors: Errors, seed: int) -> tuple[float, ...]:
    """Return QUANTILES quantiles of the errors about the thresholds, each patient counting once.

    None where no score lies there.
    """
    near = errors.at(_decided(errors))
    if not len(near.error):
        return ()
    found = np.quantile(_one_of_each(near, seed), np.linspace(0, 1, QUANTILES))
    return tuple(round(float(value), 4) for value in found)


@dataclass(frozen=True, slots=True)
class Flags:
    """How well the chance of being wrong about the flag is known; shares, patients counting alike.

    unsure: of scores about the thresholds, those with a chance above UNSURE_CHANCE to be beyond it.
    right_where_sure, right_where_unsure: the true score lies on the same side; NaN for none.
    """

    unsure: float
    right_where_sure: float
    right_where_unsure: float


def flags(errors: Errors, threshold: float, seed: int) -> Flags:
    """Try each fold's errors against what the other folds make one expect."""
    near = errors.at(_decided(errors))
    unsure = np.zeros(len(near.error), bool)
    for fold in np.unique(near.fold):
        known = quantiles(near.at(near.fold != fold), seed)
        for place in np.flatnonzero(near.fold == fold):
            score = float(near.given[place])
            unsure[place] = chance_beyond(threshold, score, known) > UNSURE_CHANCE
    right = (near.given >= threshold) == (near.given + near.error >= threshold)
    return Flags(
        _by_patient(unsure, near.patient),
        _by_patient(right[~unsure], near.patient[~unsure]),
        _by_patient(right[unsure], near.patient[unsure]),
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share inside the interval, patients counting alike; low, high: 95 %, NaN for under 8."""

    patients: int
    share: float
    low: float
    high: float


def coverage_of(errors: Errors, level: float, seed: int) -> dict[str, Coverage]:
    """Count how often an interval holds that was set without the fold it is tried on.

    Returns it for "all", each region, and the scores in DECIDED, each with some.
    """
    inside = np.zeros(len(errors.error))
    for fold in np.unique(errors.fold):
        here = errors.fold == fold
        below, above = interval(errors.at(~here), level, seed)
        inside[here] = (errors.error[here] >= -below) & (errors.error[here] <= above)
    chosen = {"all": np.ones(len(inside), bool)}
    for region in np.unique(errors.region):
        chosen[str(region)] = errors.region == region
    chosen["scores 1 to 3.5"] = _decided(errors)
    return {
        name: _coverage(inside[at], errors.patient[at], seed)
        for name, at in chosen.items()
        if at.any()
    }


def _decided(errors: Errors) -> npt.NDArray[np.bool_]:
    return (errors.given >= DECIDED[0]) & (errors.given <= DECIDED[1])


def _by_patient(holds: npt.NDArray[np.bool_], patient: npt.NDArray[np.str_]) -> float:
    """Return the mean over the patients of the share that holds; NaN for none."""
    if not len(holds):
        return float("nan")
    _, place = np.unique(patient, return_inverse=True)
    return float((np.bincount(place, holds) / np.bincount(place)).mean())


def _coverage(inside: Float64Array, patient: npt.NDArray[np.str_], seed: int) -> Coverage:
    names, place = np.unique(patient, return_inverse=True)
    share = np.bincount(place, inside) / np.bincount(place)
    low = high = float("nan")
    if len(names) >= bootstrap.MIN_PATIENTS:
        weights = bootstrap.draws(names.tolist(), seed)
        low, high = bootstrap.bounds(weights @ share / len(names))
    return Coverage(len(names), float(share.mean()), low, high)


def _one_of_each(errors: Errors, seed: int) -> Float64Array:
    """Draw one error of each patient, DRAWS times: (DRAWS, patients)."""
    rng = np.random.default_rng(seed)
    names = np.unique(errors.patient)
    own = [errors.error[errors.patient == name] for name in names]
    if not own:
        return np.empty((DRAWS, 0))
    return np.stack([rng.choice(values, DRAWS) for values in own], axis=1)
