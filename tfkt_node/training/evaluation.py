"""What a model is worth: held-out patients, images that readers scored, real pairs of doses.

Works on anything that maps slices to u, so that the same figures come from an engine and from a
network still in training. The labels are simulated: nothing here says how readers would score a
clinical series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfkt_node.iqa.uncertainty import Calibration, score
from tfkt_node.records import FloatArray
from tfkt_node.training import real_images
from tfkt_node.training.anchor_label import AnchorLabel, anchor_labels
from tfkt_node.training.baselines import noise_formula
from tfkt_node.training.collection import CleanSlice, Part
from tfkt_node.training.dataset import Row, row_of
from tfkt_node.training.measures import (
    Agreement,
    Float64Array,
    agreement,
    falls_with_dose,
    gains_by_smoothing,
    order_of_halves,
)
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.tissue import even_tissue, noise_hu
from tfkt_node.training.track import Track
from tfkt_node.training.versions import versions

Quality = Callable[[FloatArray], Float64Array]
"""(n, 512, 512) float32 HU to u, (n,)."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows of held-out patients with the model's u and its reported score, (n,) each.

    formula_u: what the noise formula makes of the noise measured on each version.
    """

    rows: list[Row]
    formula_u: Float64Array
    u: Float64Array
    scores: Float64Array


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the card."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class RealImages:
    """What was said of real images.

    anchors: (name, readers' score, score, score of the noise formula). labels: what the label
    makes of the anchors. pairs: (name, score at full dose, score at a quarter).
    """

    anchors: list[tuple[str, float, float, float]]
    labels: list[AnchorLabel]
    pairs: list[tuple[str, float, float]]


def held_out(
    slices: Sequence[CleanSlice],
    recipe: DataRecipe,
    quality: Quality,
    calibration: Calibration,
    track: Track,
) -> HeldOut:
    """Simulate every version of the slices anew and put them to the model."""
    rows: list[Row] = []
    u: list[float] = []
    noise: list[float] = []
    for clean in track(slices, len(slices), "Evaluating"):
        made = list(versions(clean, Part.TEST, recipe))
        rows += [row_of(clean, Part.TEST, version) for version in made]
        noise += [noise_hu(version.hu, even_tissue(version.hu)) for version in made]
        u += quality(np.stack([version.hu for version in made])).tolist()
    formula = noise_formula(np.array(noise))
    return HeldOut(rows, formula, np.array(u), reported(u, calibration))


def reported(u: Iterable[float], calibration: Calibration) -> Float64Array:
    """Return the scores that a series report would show for u."""
    return np.array([score(calibration, float(value))[0] for value in u])


def real(data: Path, quality: Quality, calibration: Calibration) -> RealImages:
    """Score the anchors and the pairs. Raises Misconfigured when they are not in `data`."""

    def scores(slices: list[FloatArray]) -> list[float]:
        return [float(s) for s in reported(quality(np.stack(slices)), calibration)]

    anchors = real_images.anchors(data)
    said = scores([anchor.hu for anchor in anchors])
    noise = np.array([noise_hu(anchor.hu, even_tissue(anchor.hu)) for anchor in anchors])
    formula = np.clip(noise_formula(noise), 0, 4).tolist()
    pairs = real_images.dose_pairs(data)
    full = scores([pair.full for pair in pairs])
    quarter = scores([pair.quarter for pair in pairs])
    return RealImages(
        [(a.name, a.readers, s, f) for a, s, f in zip(anchors, said, formula, strict=True)],
        anchor_labels(anchors),
        [(p.name, f, q) for p, f, q in zip(pairs, full, quarter, strict=True)],
    )


def by_kind(found: HeldOut) -> dict[str, tuple[Agreement, Agreement]]:
    """Compare u with its label for each kind of version and for all.

    Returns kind -> (model, noise formula).
    """
    truth = np.array([row.u for row in found.rows])
    formula = found.formula_u
    kinds = np.array([row.kind for row in found.rows])
    table = {}
    for kind in ("all", *dict.fromkeys(kinds.tolist())):
        at = np.ones(len(kinds), bool) if kind == "all" else kinds == kind
        table[kind] = (agreement(truth[at], found.u[at]), agreement(truth[at], formula[at]))
    return table


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was found out about a model."""

    held_out: HeldOut
    real: RealImages
    calibration: Calibration

    def figures(self) -> list[Figure]:
        """Return the figures of the card, in the order it shows them; only those that exist."""
        named = [
            *_per_kind(self.held_out),
            *_on_held_out(self.held_out, self.calibration),
            *_on_real(self.real),
        ]
        return [Figure(name, round(value, 4)) for name, value in named if math.isfinite(value)]


def _per_kind(found: HeldOut) -> list[tuple[str, float]]:
    named = []
    for kind, (model, formula) in by_kind(found).items():
        named += [
            (f"{kind}: SROCC of u", model.srocc),
            (f"{kind}: PLCC of u", model.plcc),
            (f"{kind}: MAE of u, points", model.mae),
            (f"{kind}: SROCC of the noise formula", formula.srocc),
            (f"{kind}: MAE of the noise formula, points", formula.mae),
        ]
    return named


def _on_held_out(found: HeldOut, calibration: Calibration) -> list[tuple[str, float]]:
    truth = reported((row.u for row in found.rows), calibration)
    error = np.abs(truth - found.scores)
    above, change = gains_by_smoothing(found.rows, found.u)
    return [
        ("score: MAE, points", float(error.mean())),
        (
            "score: share of versions inside the interval",
            float(np.mean(error <= calibration.below)),
        ),
        ("dose halved: share in the right order", order_of_halves(found.rows, found.u)),
        (
            "full, half, quarter, tenth dose: share of slices with strictly falling score",
            falls_with_dose(found.rows, found.scores),
        ),
        ("smoothed put above unsmoothed: share", above),
        ("smoothed against unsmoothed: mean change of u, points", change),
    ]


def _mean_error(said: Sequence[float], real: RealImages) -> float:
    readers = [label.readers for label in real.labels]
    return float(np.mean(np.abs(np.subtract(said, readers))))


def _on_real(real: RealImages) -> list[tuple[str, float]]:
    return [
        (
            "anchors: MAE of the score, points",
            _mean_error([said for _, _, said, _ in real.anchors], real),
        ),
        (
            "anchors: MAE of the noise formula, points",
            _mean_error([said for _, _, _, said in real.anchors], real),
        ),
        ("anchors: MAE of the label, points", _mean_error([a.label for a in real.labels], real)),
        (
            "anchors: MAE of the label with constants set on the other five, points",
            _mean_error([a.left_out for a in real.labels], real),
        ),
        (
            "real pairs: share with full dose above quarter dose",
            float(np.mean([full > quarter for _, full, quarter in real.pairs])),
        ),
    ]
