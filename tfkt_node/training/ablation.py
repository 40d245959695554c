"""The ablation: one choice of the network at a time is changed, and what it costs is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array, squash
from tfkt_node.training import dataset
from tfkt_node.training.course import Run
from tfkt_node.training.fitting.cross_validation import Fold, fit_all, fitted, out_of_fold
from tfkt_node.training.judging import behaviour, bootstrap
from tfkt_node.training.judging.measures import once, srocc
from tfkt_node.training.recipe import NetworkRecipe

CHANGES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "wide window alone": {"inputs": "wide"},
        "three windows, no noise bands": {"inputs": "windows"},
        "MLP": {"feed_forward": "mlp", "ratio": 2.0},
        "KAN": {"feed_forward": "kan", "ratio": 0.5},
        "global bridge": {"bridge": "global"},
        "ordinal head": {"head": "ordinal"},
        "no Swin": {"depths": ()},
        "no opinion scores": {"features": "imagenet"},
        "opinion scores": {"features": "opinion"},
    }
)
"""Fields of `NetworkRecipe`; a change that changes nothing of the recipe's network is left out. Not
tried: no pre-training at all (the features are frozen: random ones would be no fair rival)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One network of the table; means over the seeds, each on another fold.

    difference: of SROCC to the recipe's network on the same versions; low, high: its 95 % interval
    by patient. mae: of u, in points. order: share of pairs of doses in the right order.
    smoothed_gain: mean change of the score by smoothing.
    """

    name: str
    srocc: float
    difference: float
    low: float
    high: float
    mae: float
    order: float
    smoothed_gain: float


def ablate(run: Run) -> list[Line]:
    """Fit each changed network with every seed of the recipe, seed by seed on another fold.

    The recipe's own network comes first. Needs the work folder of `course.train`.
    """
    plain = run.recipe.network
    networks = {"as in the recipe": plain}
    for name, change in CHANGES.items():
        if (changed := replace(plain, **change)) != plain:
            networks[name] = changed
    folds = {name: _folds(run, network) for name, network in networks.items()}
    fit_all([fold for some in folds.values() for fold in some], run.workers, run.track)
    said = {name: out_of_fold(some, fitted) for name, some in folds.items()}
    reference = said["as in the recipe"]
    return [_line(run, name, u, reference) for name, u in said.items()]


def _folds(run: Run, network: NetworkRecipe) -> list[Fold]:
    return [
        fold
        for fold in run.folds(network)
        if fold.number == (fold.fit.seed - run.recipe.fit.seed) % run.recipe.data.folds
    ]


def _line(run: Run, name: str, u: Float64Array, reference: Float64Array) -> Line:
    rows = dataset.load(run.folders.work).rows
    parts, apart, numbers = [], [], []
    for fold, (said, compared) in enumerate(zip(u, reference, strict=True)):
        places = np.flatnonzero(np.isfinite(said))
        some = [rows[place] for place in places]
        truth = np.array([row.u for row in some])
        # Each fold has patients of its own, and so draws of its own.
        draws = bootstrap.draws([row.patient for row in some], run.recipe.data.seed + fold)
        weights = np.concatenate([once(len(some)), draws])
        found = srocc(truth, said[places], weights)
        parts.append(found[0])
        apart.append(found - srocc(truth, compared[places], weights))
        one = said[places]
        numbers.append(
            (
                np.abs(one - truth).mean(),
                behaviour.order_of_dose(some, one).mean(),
                behaviour.smoothing(some, squash(one), tested_only=False).mean,
            )
        )
    difference = np.mean(apart, axis=0)
    low, high = bootstrap.bounds(difference[1:])
    mae, order, gain = (float(value) for value in np.mean(numbers, axis=0))
    return Line(name, float(np.mean(parts)), float(difference[0]), low, high, mae, order, gain)
