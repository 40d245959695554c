"""Raw quality u to the score 0..4 with its interval, of a slice and of a series.

score = squash(shift + slope u). The two constants and the widths of the interval belong to a
bundle's card (table [calibration]), apart from the weights: a recalibration changes no graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOWEST, HIGHEST = 0.0, 4.0
SOFT_END = 0.25
"""Length of the bent part at each end of the scale, in points of the score."""

U_ENDS = (LOWEST - HIGHEST, 2 * HIGHEST)
"""Raw quality from which the score is 0, and 4: sixteen times less dose than readers' 0, sixteen
times more than their 4."""

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Constants between u and the score.

    below, above: how far the interval of a slice reaches under and over its score, in points;
    quantiles of the errors on held-out patients (conformal). series: the same two lengths for the
    score of a series; those of a slice where a card has none. coverage: level of both. errors: of a
    series, true less given score: quantiles at even steps from 0 to 100 %, rising; the interval's
    ends where a card has none.
    """

    slope: float
    shift: float
    below: float
    above: float
    coverage: float
    series: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.series:
            object.__setattr__(self, "series", (self.below, self.above))
        if not self.errors:
            object.__setattr__(self, "errors", (-self.series[0], self.series[-1]))
        for name in ("slope", "shift", "below", "above", "coverage", "series", "errors"):
            numbers = np.atleast_1d(np.asarray(getattr(self, name)))
            if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
                raise ValueError(
                    f"calibration {name} must hold finite numbers: got {getattr(self, name)!r}"
                )
        for name, good in (
            ("slope", self.slope > 0),
            ("below", self.below >= 0),
            ("above", self.above >= 0),
            ("coverage", 0 < self.coverage < 1),
            ("series", len(self.series) == 2 and all(length >= 0 for length in self.series)),
            ("errors", len(self.errors) > 1 and bool(np.all(np.diff(self.errors) >= 0))),
        ):
            if not good:
                raise ValueError(f"calibration {name} is out of range: got {getattr(self, name)}")

    def scores(self, u: npt.ArrayLike) -> Float64Array:
        """Turn raw quality, any shape, into scores 0..4 of the same shape, without rounding."""
        return squash(self.shift + self.slope * np.asarray(u, np.float64))


def squash(value: npt.ArrayLike) -> Float64Array:
    """Bend the open scale softly into 0..4; any shape, same shape back.

    The identity from SOFT_END to 4 - SOFT_END. Beyond, a power bends each end so that 0 and 4 are
    reached where u ends, with no step in value or slope, and rises strictly until there: a clean
    slice has u of 5 to 8, and half its dose must show as a lower score. (A logistic is too steep in
    the middle, and never reaches 4.)
    """
    v = np.clip(np.asarray(value, dtype=np.float64), *U_ENDS)
    room = SOFT_END + HIGHEST
    above = HIGHEST - SOFT_END * ((U_ENDS[1] - v) / room) ** (room / SOFT_END)
    below = LOWEST + SOFT_END * ((v - U_ENDS[0]) / room) ** (room / SOFT_END)
    middle = np.maximum(v, LOWEST + SOFT_END)
    bent = np.where(v > HIGHEST - SOFT_END, above, middle)
    return np.where(v < LOWEST + SOFT_END, below, bent)


def unsquash(score: npt.ArrayLike) -> Float64Array:
    """Return the open-scale value that `squash` bends into a score; any shape, same shape back.

    score: 0..4, clipped to that; the ends come back as U_ENDS.
    """
    s = np.clip(np.asarray(score, dtype=np.float64), LOWEST, HIGHEST)
    room = SOFT_END + HIGHEST
    end = np.minimum(s - LOWEST, HIGHEST - s)
    reach = room * (end / SOFT_END) ** (SOFT_END / room)
    bent = np.where(s > (LOWEST + HIGHEST) / 2, U_ENDS[1] - reach, U_ENDS[0] + reach)
    return np.where(end < SOFT_END, bent, s)


def score(calibration: Calibration, u: float) -> tuple[float, tuple[float, float]]:
    """Turn raw quality u into (score, (low, high)), all in 0..4, rounded to 4 decimals.

    Rounded here, once, so that audit, JSON and report agree exactly. Raises ValueError when u is
    not finite: no score is made up (promise P6).
    """
    if not np.isfinite(u):
        raise ValueError(f"raw quality must be a finite number: got {u}")
    value = float(calibration.scores(u))
    return round(value, 4), _about(value, calibration.below, calibration.above)


def series_interval(calibration: Calibration, value: float) -> tuple[float, float]:
    """Return (low, high) of the score of a series, 0..4, rounded to 4 decimals.

    From errors of series, not of slices: what a patient's slices do not share averages out, what
    they share does not, however many they are.
    """
    return _about(value, *calibration.series)


def _about(value: float, below: float, above: float) -> tuple[float, float]:
    return round(max(value - below, LOWEST), 4), round(min(value + above, HIGHEST), 4)
