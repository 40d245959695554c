"""Cross-validation by patient: every version is judged by a network that never saw its patient."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfkt_node.training import dataset, frozen
from tfkt_node.training.dataset import Row
from tfkt_node.training.fit import Job, Places, fit, predict
from tfkt_node.training.frozen import FeatureChoice
from tfkt_node.training.recipe import FitRecipe, NetworkRecipe
from tfkt_node.training.track import Track, untracked

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fold:
    """One fit of a cross-validation: the fold that is left out, and the seed."""

    work: Path
    network: NetworkRecipe
    features: FeatureChoice
    fit: FitRecipe
    number: int

    @property
    def path(self) -> Path:
        """Where what it says of its own fold is kept; another recipe has another place."""
        text = json.dumps(
            [
                (self.work / dataset.MADE_FOR).read_text(encoding="utf-8"),
                asdict(self.network),
                self.features.name,
                asdict(self.fit),
            ]
        )
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.work / "fits" / f"{digest}-seed{self.fit.seed}-fold{self.number}.npy"


def cross_validate(folds: Sequence[Fold], workers: int, track: Track) -> dict[Fold, Float64Array]:
    """Fit each, as many at once as there are workers; returns what each says of its own fold.

    The order within a fold is that of the rows. Fits that are kept in the work folder are not
    done again.
    """
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        said = list(track(pool.imap(_fit_and_judge, folds), len(folds), "Cross-validating"))
    return dict(zip(folds, said, strict=True))


def out_of_fold(rows: Sequence[Row], said: dict[Fold, Float64Array]) -> Float64Array:
    """Put the parts of whole cross-validations together: u, (seeds, n)."""
    in_fold = np.array([row.fold for row in rows])
    seeds = sorted({fold.fit.seed for fold in said})
    u = np.full((len(seeds), len(rows)), np.nan)
    for fold, part in said.items():
        u[seeds.index(fold.fit.seed), in_fold == fold.number] = part
    return u


def seeds_of(recipe: FitRecipe) -> list[FitRecipe]:
    """Return the recipe with each of its seeds."""
    return [replace(recipe, seed=recipe.seed + more) for more in range(recipe.seeds)]


def fitted_places(rows: Sequence[Row], left_out: int | None) -> Places:
    """Return the places of the rows to fit to: all but a fold, and but what is only tested."""
    return np.flatnonzero([not row.tested_only and row.fold != left_out for row in rows])


def _fit_and_judge(fold: Fold) -> Float64Array:
    if fold.path.is_file():
        kept: Float64Array = np.load(fold.path)
        return kept
    rows = dataset.load(fold.work).rows
    maps = frozen.maps(fold.work, fold.features, 1, untracked)
    checkpoint = fold.path.with_suffix(".checkpoint")
    job = Job(fold.network, fold.features, fold.fit, fitted_places(rows, fold.number), checkpoint)
    network = fit(rows, maps, job, untracked)
    said = predict(network, maps[np.flatnonzero([row.fold == fold.number for row in rows])])
    np.save(fold.path, said)
    checkpoint.unlink()
    return said
