"""What a score must do, whatever its label: follow the dose, not reward smoothing, not see size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.training.dataset import Row

DOSE_FACTOR = 2.0
"""Versions of a slice whose doses differ by less need not be told apart."""

GAIN_POINTS = 0.1
"""A smoothed version may score above its noisy source by this much."""

MATCHED_U = 0.25
"""A child's version and an adult's are compared when their labels are this close, in points."""


def order_of_dose(rows: Sequence[Row], u: Float64Array) -> Float64Array:
    """Return for each pair of doses of a slice whether it is in the right order, (pairs,).

    u: (n,). Pairs are of the clean slice and its versions of lower dose that lie DOSE_FACTOR
    or more apart. Equal values are the wrong order.
    """
    slices = _by_slice(rows, ("clean", "dose"))
    pairs = [
        (a, b) if rows[a].dose > rows[b].dose else (b, a)
        for places in slices.values()
        for a, b in combinations(places, 2)
        if _factor(rows[a].dose, rows[b].dose) >= DOSE_FACTOR
    ]
    higher, lower = np.array(pairs, np.intp).reshape(-1, 2).T
    return np.asarray(u[higher] > u[lower], np.float64)


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Change of the score by smoothing, in points. mean: over all; gained: share of over 0.1."""

    mean: float
    gained: float


def smoothing(rows: Sequence[Row], scores: Float64Array, *, tested_only: bool) -> Smoothing:
    """Compare smoothed versions with the same noise unsmoothed; NaN where there are none.

    scores: (n,). tested_only: look at the filter that nothing was fitted to, or at the
    others. Raises KeyError for a smoothed version without its source.
    """
    source = {
        (row.file, row.dose): place
        for place, row in enumerate(rows)
        if row.kind in ("clean", "dose")
    }
    smoothed = [
        place
        for place, row in enumerate(rows)
        if row.kind == "smoothed" and row.tested_only is tested_only
    ]
    if not smoothed:
        return Smoothing(float("nan"), float("nan"))
    noisy = [source[rows[place].file, rows[place].dose] for place in smoothed]
    change = scores[smoothed] - scores[noisy]
    return Smoothing(float(change.mean()), float((change > GAIN_POINTS).mean()))


def smoothing_by_filter(rows: Sequence[Row], scores: Float64Array) -> dict[str, Smoothing]:
    """Do the same for each filter by itself, by name; scores: (n,)."""
    names = [row.detail.partition(" ")[0] if row.kind == "smoothed" else "" for row in rows]
    found = {}
    for name in sorted(set(names) - {""}):
        places = [place for place, own in enumerate(names) if own in ("", name)]
        some = [rows[place] for place in places]
        tested_only = any(row.tested_only for row in some)
        found[name] = smoothing(some, scores[places], tested_only=tested_only)
    return found


def child_differences(
    rows: Sequence[Row], scores: Float64Array, labels: Float64Array
) -> Float64Array:
    """Return score of a child-size body less that of the adult, (matches,), in points.

    scores: (n,). labels: scores that the labels stand for, (n,). Each child's version is held
    against the clean or lower-dose version of the same slice whose label u, that is, whose noise in
    pixels, is nearest and within MATCHED_U; what is left of the difference of labels is taken off.
    """
    adults = _by_slice(rows, ("clean", "dose"))
    matches = []
    for place, row in enumerate(rows):
        if row.kind != "child" or not adults.get(row.file):
            continue
        nearest = min(adults[row.file], key=lambda adult: abs(rows[adult].u - row.u))
        if abs(rows[nearest].u - row.u) <= MATCHED_U:
            matches.append((place, nearest))
    child, adult = np.array(matches, np.intp).reshape(-1, 2).T
    error = scores - labels
    difference: Float64Array = error[child] - error[adult]
    return difference


def _by_slice(rows: Sequence[Row], kinds: Iterable[str]) -> dict[str, list[int]]:
    slices: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if row.kind in kinds:
            slices[row.file].append(place)
    return slices


def _factor(a: float, b: float) -> float:
    # Steps of a factor 2 are stored as rounded binary fractions: 2 must not become 1.9999.
    return round(max(a, b) / min(a, b), 6)
