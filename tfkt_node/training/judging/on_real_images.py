"""The figures of a card that `evaluate` prints: the shipped bundle on images that are real.

Scored by readers, taken at two doses, or of patients that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from tfkt_node.iqa.bundle import RECIPE, Bundle
from tfkt_node.iqa.engine import Engine, open_engine
from tfkt_node.iqa.uncertainty import HIGHEST, LOWEST, Calibration, Float64Array
from tfkt_node.records import FloatArray
from tfkt_node.training import ldctiqac, recipe
from tfkt_node.training.dataset import Row, row_of
from tfkt_node.training.images import real_images
from tfkt_node.training.images.collection import CleanSlice
from tfkt_node.training.images.slice_files import read_slice
from tfkt_node.training.judging import comparison, recalibration
from tfkt_node.training.judging.baselines import noise_formula
from tfkt_node.training.judging.evaluation import Figure, Named, behaviour_figures, named_figures
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.simulation.anchor_label import AnchorLabel, anchor_labels
from tfkt_node.training.simulation.presentation import flat
from tfkt_node.training.simulation.tissue import even_tissue, noise_hu
from tfkt_node.training.simulation.versions import versions
from tfkt_node.training.track import Track

EVALUATE = "tfkt-node evaluate --bundle BUNDLE --data DATA"
"""Prints the figures of `bundle_figures`."""


@dataclass(frozen=True, slots=True)
class ScoredAnchor:
    """One anchor: readers' score, what the bundle says, and what the noise formula says, 0..4.

    left_out: what the bundle would say with its shift set on the other anchors.
    """

    name: str
    readers: float
    score: float
    noise_formula: float
    left_out: float


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """One slice at full and at a quarter of the dose, as the bundle scores it, 0..4."""

    name: str
    full: float
    quarter: float


@dataclass(frozen=True, slots=True)
class SeenOtherwise:
    """Changes of the scores of anchors and pairs, in points, one for each image.

    flat: with one value instead of air and table. turned: upside down, as of a prone patient.
    """

    flat: Float64Array
    turned: Float64Array


@dataclass(frozen=True, slots=True)
class OnRealImages:
    """What a bundle makes of images that it was not fitted to.

    labels: of the anchors. unseen: versions of the series' slices, and their u, (n,). readers:
    against the challenge's readers, None without its images; in sample if the bundle was fitted to
    them, which its card says.
    """

    anchors: list[ScoredAnchor]
    labels: list[AnchorLabel]
    pairs: list[ScoredPair]
    otherwise: SeenOtherwise
    unseen: tuple[list[Row], Float64Array]
    readers: ldctiqac.Readers | None

    def figures(self) -> list[Figure]:
        """Return the figures that `evaluate` prints."""
        rows, u = self.unseen
        unseen = [(f"series never fitted to, {name}", value) for name, value in _unseen(rows, u)]
        readers = self.readers
        challenge = () if readers is None else asdict(readers).items()
        return named_figures(
            EVALUATE,
            (
                *_on_anchors(self.anchors, self.labels),
                *_on_pairs(self.pairs),
                *_otherwise(self.otherwise),
                *unseen,
                *((f"LDCTIQAC readers: {name}", value) for name, value in challenge),
            ),
        )


def bundle_figures(bundle: Bundle, data: Path, track: Track) -> list[Figure]:
    """Return the figures of a bundle on real images, run by OpenVINO as it ships."""
    return on_real_images(bundle, open_engine(bundle, "openvino"), data, track).figures()


def on_real_images(bundle: Bundle, engine: Engine, data: Path, track: Track) -> OnRealImages:
    """Score anchors, pairs, versions of the series' slices, and the challenge's images if there.

    engine: of the bundle. data: holds anchors, paired-dose and series. Raises Misconfigured when
    one is missing.
    """
    anchors, pairs = real_images.anchors(data), real_images.dose_pairs(data)
    slices, scored = real_images.series_slices(data), ldctiqac.scored_slices(data)
    constants = recipe.read(bundle.folder / RECIPE).data
    calibration = bundle.calibration

    def score(slices: Iterable[FloatArray]) -> list[float]:
        scores: list[float] = calibration.scores(engine.quality(np.stack(list(slices)))).tolist()
        return scores

    noise = np.array([noise_hu(anchor.hu, even_tissue(anchor.hu)) for anchor in anchors])
    formula = np.clip(noise_formula(noise), LOWEST, HIGHEST).tolist()
    u = engine.quality(np.stack([anchor.hu for anchor in anchors]))
    said = calibration.scores(u).tolist()
    others = recalibration.left_out(
        calibration.slope * u, np.array([anchor.readers for anchor in anchors])
    )
    full, quarter = score(p.full for p in pairs), score(p.quarter for p in pairs)
    tracked = track(scored, len(scored), "Scoring LDCTIQAC")
    challenge = [score([read_slice(one.slice.path)])[0] for one in tracked]
    return OnRealImages(
        [
            ScoredAnchor(a.name, a.readers, s, f, float(o))
            for a, s, f, o in zip(anchors, said, formula, others, strict=True)
        ],
        anchor_labels(anchors),
        [ScoredPair(p.name, f, q) for p, f, q in zip(pairs, full, quarter, strict=True)],
        _seen_otherwise(
            [*(a.hu for a in anchors), *(p.full for p in pairs), *(p.quarter for p in pairs)],
            np.array([*said, *full, *quarter]),
            score,
        ),
        _on_readers_scale(unseen_versions(slices, constants, engine, track), calibration),
        ldctiqac.against_readers(np.array([one.score for one in scored]), np.array(challenge))
        if scored
        else None,
    )


def _seen_otherwise(
    images: Sequence[FloatArray],
    said: Float64Array,
    score: Callable[[Iterable[FloatArray]], list[float]],
) -> SeenOtherwise:
    turned = score(np.ascontiguousarray(hu[::-1, ::-1]) for hu in images)
    return SeenOtherwise(np.array(score(map(flat, images))) - said, np.array(turned) - said)


def unseen_versions(
    slices: Sequence[CleanSlice], constants: DataRecipe, engine: Engine, track: Track
) -> tuple[list[Row], Float64Array]:
    """Simulate the recipe's versions of each slice, and let the engine say u, (n,)."""
    rows: list[Row] = []
    u: list[float] = []
    for clean in track(slices, len(slices), "Scoring the series"):
        made = list(versions(clean, constants))
        rows += [row_of(clean, 0, version) for version in made]
        u += engine.quality(np.stack([version.hu for version in made])).tolist()
    return rows, np.array(u)


def _on_readers_scale(
    unseen: tuple[list[Row], Float64Array], calibration: Calibration
) -> tuple[list[Row], Float64Array]:
    rows, u = unseen
    shift = calibration.shift
    return recalibration.shifted(rows, shift), calibration.slope * u + shift


def _on_anchors(anchors: Sequence[ScoredAnchor], labels: Sequence[AnchorLabel]) -> Named:
    readers = np.array([anchor.readers for anchor in anchors])
    for name, said in (
        ("score", [anchor.score for anchor in anchors]),
        ("score with the shift set on the other five", [anchor.left_out for anchor in anchors]),
        ("noise formula", [anchor.noise_formula for anchor in anchors]),
        ("label", [label.label for label in labels]),
        ("label with constants set on the other five", [label.left_out for label in labels]),
    ):
        yield f"anchors: MAE of the {name}", float(np.abs(np.array(said) - readers).mean())
    yield (
        "anchors: share of pairs in order",
        float(
            np.mean(
                [
                    (a.score - b.score) * (a.readers - b.readers) > 0
                    for a, b in combinations(anchors, 2)
                    if a.readers != b.readers
                ]
            )
        ),
    )


def _on_pairs(pairs: Sequence[ScoredPair]) -> Named:
    for pair in pairs:
        yield f"real pair {pair.name}: full less quarter dose", pair.full - pair.quarter
    yield "real pairs: share in order", float(np.mean([p.full > p.quarter for p in pairs]))


def _otherwise(changes: SeenOtherwise) -> Named:
    for name, change in (
        ("one value around the body", changes.flat),
        ("turned by half", changes.turned),
    ):
        yield f"real images, {name}: mean change of score", float(change.mean())
        yield f"real images, {name}: MAE of score", float(np.abs(change).mean())


def _unseen(rows: Sequence[Row], u: Float64Array) -> Named:
    whole = comparison.agreement(rows, u)[0]
    yield "versions", whole.versions
    yield "SROCC", whole.srocc
    yield "MAE of score", whole.mae_score
    yield from behaviour_figures(rows, u)
