"""The course of a training run, from clean slices to a bundle with its figures."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tfkt_node.iqa import bundle
from tfkt_node.iqa.engine import open_engine
from tfkt_node.iqa.network import Network
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.records import Misconfigured
from tfkt_node.training import bundle_text, dataset, evaluation, export, measures, real_images
from tfkt_node.training.baselines import ridge
from tfkt_node.training.collection import Part, clean_slices
from tfkt_node.training.dataset import Dataset, Row
from tfkt_node.training.evaluation import Evaluation, Figure
from tfkt_node.training.fit import fit, predict
from tfkt_node.training.recipe import Recipe, read
from tfkt_node.training.track import Track

NO_INTERVAL_YET = Calibration(slope=1.0, shift=0.0, below=4.0, above=4.0, coverage=0.9)
"""u is fitted on the scale of the score: neither slope nor shift is needed."""

OTHER_FEED_FORWARD: dict[str, tuple[Literal["kan", "mlp"], float]] = {
    "kan": ("mlp", 2.0),
    "mlp": ("kan", 0.5),
}
"""What stands against a feed-forward, with its usual width over that of a token."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run reads and writes.

    data: holds ct-clean, anchors and paired-dose. work: maps and table (gigabytes), used again by
    a later run with the same data recipe. out: becomes the bundle.
    """

    data: Path
    work: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run, with the figures that its card shows."""

    bundle: bundle.Bundle
    evaluation: Evaluation
    figures: list[Figure]


@dataclass(frozen=True, slots=True)
class _Fitted:
    network: Network
    recipe: Recipe
    rows: list[Row]
    calibration: Calibration

    def write(self, folder: Path, figures: list[Figure]) -> bundle.Bundle:
        description = bundle_text.describe(self.recipe, self.rows, self.calibration, figures)
        return export.write_bundle(folder, self.network, description, export.golden_slices())


def train(folders: Folders, recipe: Recipe, workers: int, track: Track) -> Trained:
    """Simulate, fit, calibrate, evaluate on held-out patients and write the bundle.

    workers: processes that simulate. Raises Misconfigured when data are missing.
    """
    # Read first what is only needed last: an hour from now is late to miss them.
    real_images.anchors(folders.data)
    real_images.dose_pairs(folders.data)
    prepared = dataset.prepare(folders.data, folders.work, recipe.data, workers, track)
    network = fit(prepared, recipe.fit, track)
    calibration = calibrate(prepared, network, recipe)
    fitted = _Fitted(network, recipe, prepared.rows, calibration)
    rivals = _rivals(prepared, recipe, track)
    # The figures come from the very files that ship, through the engine that runs them.
    with tempfile.TemporaryDirectory(prefix="tfkt-node-") as scratch:
        judged = evaluate(fitted.write(Path(scratch), []), folders.data, track)
    figures = [*judged.figures(), *rivals]
    return Trained(fitted.write(folders.out, figures), judged, figures)


def evaluate(shipped: bundle.Bundle, data: Path, track: Track) -> Evaluation:
    """Put a bundle, run by OpenVINO, to exactly the patients that its card names as held out.

    Raises Misconfigured when slices of one of them are not in `data`.
    """
    recipe = read(shipped.folder / bundle.RECIPE)
    named = set(shipped.card["data"]["test_patients"])
    slices = [s for s in clean_slices(data, recipe.data) if s.patient in named]
    missing = len(named) - len({s.patient for s in slices})
    if missing:
        raise Misconfigured(
            f"{data}: ct-clean lacks {missing} of the {len(named)} patients that bundle "
            f"{shipped.name} was tested on; give the data that it was trained with"
        )
    engine = open_engine(shipped, "openvino")
    found = evaluation.held_out(slices, recipe.data, engine.quality, shipped.calibration, track)
    real = evaluation.real(data, engine.quality, shipped.calibration)
    return Evaluation(found, real, shipped.calibration)


def calibrate(prepared: Dataset, network: Network, recipe: Recipe) -> Calibration:
    """Set the width of the score's interval on the calibration patients."""
    places = prepared.part(Part.CALIBRATION)
    rows = [prepared.rows[place] for place in places]
    said = evaluation.reported(predict(network, prepared.maps[places]), NO_INTERVAL_YET)
    truth = evaluation.reported((row.u for row in rows), NO_INTERVAL_YET)
    width = measures.half_width(rows, np.abs(truth - said), recipe.coverage, seed=recipe.data.seed)
    width = round(min(width, 4.0), 4)
    return Calibration(1.0, 0.0, below=width, above=width, coverage=recipe.coverage)


def _rivals(prepared: Dataset, recipe: Recipe, track: Track) -> list[Figure]:
    """Fit what the network has to beat to the same maps: its other feed-forward, and a ridge."""
    places = prepared.part(Part.TEST)
    truth = np.array([prepared.rows[place].u for place in places])
    feed_forward, ratio = OTHER_FEED_FORWARD[recipe.fit.feed_forward]
    other = fit(prepared, replace(recipe.fit, feed_forward=feed_forward, ratio=ratio), track)
    figures = []
    for name, said in (
        (f"rival, {feed_forward.upper()} feed-forward", predict(other, prepared.maps[places])),
        ("rival, ridge on pooled features", ridge(prepared)[places]),
    ):
        found = measures.agreement(truth, said)
        figures += [
            Figure(f"{name}: SROCC of u", round(found.srocc, 4)),
            Figure(f"{name}: MAE of u, points", round(found.mae, 4)),
        ]
    return figures
