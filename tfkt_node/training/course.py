"""The course of a training run, from clean slices to a bundle with its figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tfkt_node.iqa import bundle, feature_distance
from tfkt_node.iqa.efficient_kan import zero_splines
from tfkt_node.iqa.network import Network
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.training import dataset
from tfkt_node.training.bundles import bundle_text, export
from tfkt_node.training.dataset import Row
from tfkt_node.training.fitting import frozen, phase_one
from tfkt_node.training.fitting.cross_validation import (
    Fold,
    fit_all,
    fitted,
    out_of_fold,
    seeds_of,
    together,
)
from tfkt_node.training.fitting.frozen import FeatureChoice
from tfkt_node.training.images import real_images
from tfkt_node.training.judging import (
    conformal,
    evaluation,
    noise_numbers,
    on_real_images,
    pictures,
    recalibration,
)
from tfkt_node.training.judging.baselines import pooled, rivals
from tfkt_node.training.judging.evaluation import CrossValidated, Figure
from tfkt_node.training.recipe import NetworkRecipe, Recipe
from tfkt_node.training.track import Track, untracked


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run reads and writes.

    data: holds ct-clean, anchors, paired-dose, and natural for phase 1. work: versions, maps and
    fits (gigabytes); a run that was stopped goes on there. out: becomes the bundle.
    """

    data: Path
    work: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Run:
    """What all steps of a run share. workers: processes that work at once."""

    folders: Folders
    recipe: Recipe
    workers: int
    track: Track

    def features(self, network: NetworkRecipe) -> FeatureChoice:
        """Return the features of a network; phase 1 is run when it is their turn."""
        if network.features == "imagenet":
            return FeatureChoice(network.inputs)
        adapted = phase_one.adapted(
            self.folders.data, self.folders.work, network.inputs, self.recipe.natural, self.track
        )
        return FeatureChoice(network.inputs, adapted)

    def folds(self, network: NetworkRecipe) -> list[Fold]:
        """Return every fit of a network's cross-validation; its maps are made first."""
        choice = self.features(network)
        frozen.both_maps(self.folders.work, choice, self.workers, self.track)
        return [
            Fold(self.folders.work, network, choice, seeded, number)
            for seeded in seeds_of(self.recipe.fit)
            for number in range(self.recipe.data.folds)
        ]


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run, with the figures that its card shows."""

    bundle: bundle.Bundle
    figures: list[Figure]


def train(run: Run) -> Trained:
    """Simulate, cross-validate, fit to all, and write the bundle.

    Raises Misconfigured when data are missing.
    """
    folders, recipe = run.folders, run.recipe
    # Read first what is only needed last: an hour from now is late to miss them.
    real_images.anchors(folders.data)
    real_images.dose_pairs(folders.data)
    real_images.series_slices(folders.data)
    rows = dataset.prepare(folders.data, folders.work, recipe.data, run.workers, run.track).rows
    pictures.examples(folders.work, recipe.data.seed)
    folds = run.folds(recipe.network)
    shipped = [replace(fold, number=None) for fold in folds[:: recipe.data.folds]]
    fit_all([*shipped, *folds], run.workers, run.track)
    network = together(shipped)
    shift = _shift(network, folders.data)
    judged = cross_validated(run, rows, folds, shift)
    pictures.scores(folders.work / pictures.SCORES, judged.rows, judged.u, (), recipe.data.seed)
    calibration = conformal.calibrate(
        judged.rows, judged.u, recipe.coverage, recipe.data.seed, shift
    )
    figures = evaluation.cross_validated_figures(judged, recipe.coverage, recipe.data.seed)
    parts = _Parts(network, calibration, _distance(rows, shipped[0]))
    draft = parts.write(folders.work / "draft", recipe, rows, figures)
    # These come from the very files that ship, through the engine that runs them.
    figures += on_real_images.bundle_figures(draft, folders.data, run.track)
    return Trained(parts.write(folders.out, recipe, rows, figures), figures)


def cross_validated(run: Run, rows: list[Row], folds: list[Fold], shift: float) -> CrossValidated:
    """Put together what the network and its rivals say of patients that they never saw.

    The network that judges a fold is put together as the one that ships: its members are the fits
    without that fold. Labels and all that is said are on the readers' scale, to which `shift`
    brings them.
    """
    wide, soft = (
        pooled(frozen.maps(run.folders.work, FeatureChoice(inputs), run.workers, run.track))
        for inputs in ("wide", "windows")
    )
    noise = noise_numbers.all_noise_numbers(run.folders.work, run.workers, run.track)
    has_splines = folds[0].network.feed_forward == "kan"
    alone = out_of_fold(folds, fitted) + shift
    return CrossValidated(
        recalibration.shifted(rows, shift),
        alone.mean(axis=0),
        alone,
        out_of_fold(folds, fitted, otherwise=True).mean(axis=0) + shift,
        {name: u + shift for name, u in rivals(rows, noise, wide, soft).items()},
        out_of_fold(folds, _without_splines).mean(axis=0) + shift if has_splines else None,
    )


def _shift(network: Network, data: Path) -> float:
    """Set the shift to the readers' scale on the anchors."""
    anchors = real_images.anchors(data)
    with torch.inference_mode():
        u = [float(network(torch.from_numpy(anchor.hu[None]))) for anchor in anchors]
    return recalibration.shift_to_readers(np.array(u), np.array([a.readers for a in anchors]))


@dataclass(frozen=True, slots=True)
class _Parts:
    network: Network
    calibration: Calibration
    distance: feature_distance.FeatureDistance

    def write(
        self, folder: Path, recipe: Recipe, rows: list[Row], figures: list[Figure]
    ) -> bundle.Bundle:
        description = bundle_text.describe(recipe, rows, self.calibration, figures)
        return export.write_bundle(
            folder, self.network, description, export.golden_slices(), self.distance
        )


def _distance(rows: list[Row], fold: Fold) -> feature_distance.FeatureDistance:
    """Fit the scope's distance to every version, as it is and presented otherwise."""
    maps = frozen.both_maps(fold.work, fold.features, 1, untracked)
    vectors = [
        np.asarray(one, np.float32).mean(axis=(1, 2))
        for some in (maps.plain, maps.otherwise)
        for one in some
    ]
    patients, u = [row.patient for row in rows], [row.u for row in rows]
    return feature_distance.fit(np.stack(vectors), 2 * patients, 2 * u)


def _without_splines(fold: Fold) -> Network:
    network = fitted(fold)
    zero_splines(network)
    return network
