"""The model beside its rivals on patients that none of them saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array, squash
from tfkt_node.training.dataset import Row
from tfkt_node.training.judging import bootstrap
from tfkt_node.training.judging.measures import correlation, once, ranks, srocc

SUBSETS: Mapping[str, Callable[[Row], bool]] = MappingProxyType(
    {
        "all": lambda row: True,
        "noise": lambda row: row.kind == "dose",
        "sparse views": lambda row: row.kind == "views",
        "sparse views and dose": lambda row: row.kind == "both",
        "smoothed": lambda row: row.kind == "smoothed",
        "streaks": lambda row: row.kind == "streaks",
        "child": lambda row: row.kind == "child",
        "readers": lambda row: row.kind == "readers",
        "chest": lambda row: row.region == "chest",
        "abdomen and pelvis": lambda row: row.region in ("abdomen", "pelvis"),
    }
)
"""What is looked at apart. Clean slices are in "all" and in their region only: nothing was done
to them, and their label is their own measured noise. "readers": see `ldctiqac`."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the model agrees with the labels of a subset.

    mae_u, mae_score: mean absolute errors of u and of the score, in points.
    """

    subset: str
    patients: int
    versions: int
    srocc: float
    plcc: float
    mae_u: float
    mae_score: float


@dataclass(frozen=True, slots=True)
class Gain:
    """SROCC of the model less that of a rival. low, high: 95 %, NaN for fewer than 8 patients."""

    subset: str
    rival: str
    rival_srocc: float
    gain: float
    low: float
    high: float


def agreement(rows: Sequence[Row], u: Float64Array) -> list[Agreement]:
    """Compare u, (n,), with the labels in each subset that has rows."""
    found = []
    for name, at in _subsets(rows).items():
        truth, said, all_once = _labels(rows, at), u[at], once(len(at))
        found.append(
            Agreement(
                name,
                len(set(_patients(rows, at))),
                len(at),
                float(srocc(truth, said, all_once)[0]),
                float(correlation(truth, said, all_once)[0]),
                float(np.abs(said - truth).mean()),
                float(np.abs(squash(said) - squash(truth)).mean()),
            )
        )
    return found


def gains(
    rows: Sequence[Row], u: Float64Array, rivals: Mapping[str, Float64Array], seed: int
) -> list[Gain]:
    """Compare the SROCC of u, (n,), with that of each rival, (n,).

    Paired bootstrap by patient, each subset with its own patients.
    """
    found = []
    for name, at in _subsets(rows).items():
        patients = _patients(rows, at)
        # The first draw is the rows as they are, the others are the bootstrap's.
        weights = np.concatenate([once(len(at)), bootstrap.draws(patients, seed)])
        true = ranks(_labels(rows, at), weights)
        model = correlation(true, ranks(u[at], weights), weights)
        may_claim = len(set(patients)) >= bootstrap.MIN_PATIENTS
        for rival, said in rivals.items():
            other = correlation(true, ranks(said[at], weights), weights)
            ahead = model - other
            low, high = bootstrap.bounds(ahead[1:]) if may_claim else (np.nan, np.nan)
            found.append(Gain(name, rival, float(other[0]), float(ahead[0]), low, high))
    return found


def _subsets(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Return the places of the rows of each subset that has enough for a correlation."""
    places = {
        name: [place for place, row in enumerate(rows) if belongs(row)]
        for name, belongs in SUBSETS.items()
    }
    return {name: at for name, at in places.items() if len(at) >= 3}


def _labels(rows: Sequence[Row], at: Sequence[int]) -> Float64Array:
    return np.array([rows[place].u for place in at])


def _patients(rows: Sequence[Row], at: Sequence[int]) -> list[str]:
    return [rows[place].patient for place in at]
