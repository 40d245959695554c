"""Raw quality u to the score 0..4 with its interval.

score = squash(shift + slope u). The two constants and the widths of the interval belong to a
bundle's card (table [calibration]), apart from the weights: a recalibration changes no graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOWEST, HIGHEST = 0.0, 4.0
SOFT_END = 1.0
"""Half the length, in u, of the bend at each end of the scale."""

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Constants between u and the score.

    below, above: how far the interval reaches under and over the score, in points of the score;
    quantiles of the errors on calibration patients (split conformal). coverage: their level.
    """

    slope: float
    shift: float
    below: float
    above: float
    coverage: float

    def __post_init__(self) -> None:
        for name, good in (
            ("slope", self.slope > 0),
            ("below", self.below >= 0),
            ("above", self.above >= 0),
            ("coverage", 0 < self.coverage < 1),
        ):
            if not good:
                raise ValueError(f"calibration {name} is out of range: got {getattr(self, name)}")


def squash(value: npt.ArrayLike) -> Float64Array:
    """Bend the open scale softly into 0..4; any shape, same shape back.

    The identity from 1 to 3, constant beyond -1 and 5, a parabola between, so that slope and value
    have no step: it never falls, it rises strictly over -1..5, and 0 and 4 are reached exactly. (A
    logistic is too steep in the middle and never reaches the ends that radiologists do give.)
    """
    v = np.asarray(value, dtype=np.float64)
    low, high = LOWEST, HIGHEST
    from_low = np.clip(v - (low - SOFT_END), 0.0, 2 * SOFT_END)
    from_high = np.clip((high + SOFT_END) - v, 0.0, 2 * SOFT_END)
    middle = np.clip(v, low + SOFT_END, high - SOFT_END)
    bend_low = from_low**2 / (4 * SOFT_END) - SOFT_END
    bend_high = SOFT_END - from_high**2 / (4 * SOFT_END)
    return np.clip(middle + bend_low + bend_high, low, high)


def score(calibration: Calibration, u: float) -> tuple[float, tuple[float, float]]:
    """Turn raw quality u into (score, (low, high)), all in 0..4, rounded to 4 decimals.

    Rounded here, once, so that audit, JSON and report agree exactly. Raises ValueError when u is
    not finite: no score is made up (promise P6).
    """
    if not np.isfinite(u):
        raise ValueError(f"raw quality must be a finite number: got {u}")
    value = float(squash(calibration.shift + calibration.slope * u))
    low = max(value - calibration.below, LOWEST)
    high = min(value + calibration.above, HIGHEST)
    return round(value, 4), (round(low, 4), round(high, 4))
