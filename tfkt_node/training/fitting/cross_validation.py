"""Cross-validation by patient: every version is judged by a network that never saw its patient."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import nn

from tfkt_node.iqa.network import Network, build
from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.training import dataset
from tfkt_node.training.dataset import Row
from tfkt_node.training.fitting import frozen
from tfkt_node.training.fitting.fit import Job, Places, config, fit, predict
from tfkt_node.training.fitting.frozen import FeatureChoice
from tfkt_node.training.recipe import FitRecipe, NetworkRecipe
from tfkt_node.training.track import Track, untracked

LOG = "train.log"
"""In the work folder: a line for each epoch of each fit."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One fit of a cross-validation: the seed is in `fit`; number is the fold that is left out.

    number None: nobody is left out. Such fits ship.
    """

    work: Path
    network: NetworkRecipe
    features: FeatureChoice
    fit: FitRecipe
    number: int | None

    @property
    def path(self) -> Path:
        """Where its weights are kept; another recipe has another place."""
        text = json.dumps(
            [
                (self.work / dataset.MADE_FOR).read_text(encoding="utf-8"),
                asdict(self.network),
                self.features.name,
                asdict(self.fit),
            ]
        )
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        left_out = "none" if self.number is None else self.number
        name = f"{digest}-seed-{self.fit.seed}-without-{left_out}.safetensors"
        return self.work / "fits" / name


def fit_all(folds: Sequence[Fold], workers: int, track: Track) -> None:
    """Fit each, as many at once as there are workers; what was fitted before is not done again."""
    left = [fold for fold in folds if not fold.path.is_file()]
    if not left:
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        for _ in track(pool.imap_unordered(_fit, left), len(left), "Fitting"):
            pass


def fitted(fold: Fold) -> Network:
    """Return the network of a fit that was done, with its one member, in evaluation mode."""
    network = build(config(fold.network))
    network.load_state_dict(load_file(fold.path))
    return network


def together(folds: Sequence[Fold]) -> Network:
    """Return one network whose members are those of several fits, in evaluation mode.

    The fits are of the same patients and differ in the seed alone.
    """
    fits = [fitted(fold) for fold in folds]
    network = build(replace(fits[0].config, members=len(fits)))
    network.features, network.standard = fits[0].features, fits[0].standard
    network.members = nn.ModuleList(member for fit in fits for member in fit.members)
    return network.eval()


def out_of_fold(
    folds: Sequence[Fold], network_of: Callable[[Fold], Network], *, otherwise: bool = False
) -> Float64Array:
    """Let each judge the fold it never saw: u, (seeds, n), NaN where no fold of a seed judged.

    All folds are of one work folder, network and features. network_of: `fitted`, or one that
    changes the network first. otherwise: versions as they are presented otherwise.
    """
    rows = dataset.load(folds[0].work).rows
    maps = frozen.maps(folds[0].work, folds[0].features, 1, untracked, otherwise=otherwise)
    in_fold = np.array([row.fold for row in rows])
    seeds = sorted({fold.fit.seed for fold in folds})
    u = np.full((len(seeds), len(rows)), np.nan)
    for fold in folds:
        places = np.flatnonzero(in_fold == fold.number)
        u[seeds.index(fold.fit.seed), places] = predict(network_of(fold), maps[places])
    return u


def seeds_of(recipe: FitRecipe) -> list[FitRecipe]:
    """Return the recipe with each of its seeds."""
    return [replace(recipe, seed=recipe.seed + more) for more in range(recipe.seeds)]


def fitted_places(rows: Sequence[Row], left_out: int | None) -> Places:
    """Return the places of the rows to fit to: all but a fold, and but what is only tested."""
    return np.flatnonzero([not row.tested_only and row.fold != left_out for row in rows])


def _fit(fold: Fold) -> None:
    rows = dataset.load(fold.work).rows
    maps = frozen.both_maps(fold.work, fold.features, 1, untracked)
    checkpoint = fold.path.with_suffix(".checkpoint")
    places = fitted_places(rows, fold.number)
    job = Job(fold.network, fold.features, fold.fit, places, checkpoint, fold.work / LOG)
    network = fit(rows, maps, job, untracked)
    unfinished = fold.path.with_suffix(".part")
    save_file(network.state_dict(), unfinished)
    unfinished.replace(fold.path)
    checkpoint.unlink()
