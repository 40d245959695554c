"""Slices that radiologists scored: the challenge LDCTIQAC 2023 in the layout that it ships.

A folder LDCTIQAG2023_train with `image/NAME.tif` (512 x 512, the window -1000..400 HU as 0..1) and
`train.json` (name: mean score of the readers, 0..4). Its terms are disputed between sources (CC BY
or CC BY-NC-SA 4.0); it is not among this project's data.
Source: Lee et al., Medical Image Analysis 99 (2025) 103343.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
import scipy.sparse.csgraph as graph

from tfkt_node.iqa.uncertainty import Float64Array, unsquash
from tfkt_node.records import FloatArray, Misconfigured
from tfkt_node.training.dataset import Row
from tfkt_node.training.images.collection import CleanSlice
from tfkt_node.training.images.slice_files import read_slice
from tfkt_node.training.simulation.tissue import even_tissue, noise_hu

FOLDER = "LDCTIQAG2023_train"
KIND = "readers"
"""The kind of a row whose label is a reader's score."""

SAME_SLICE = 0.995
"""Correlation, without noise, above which two images show one slice: versions of one exceed .999
(measured by the authors of RIQE). Nothing else tells whose a slice is."""

LABEL_RANGE = (-1.0, 5.0)
"""Readers' 0 and 4 are the ends of their scale, where u goes on: as labels they count as a factor 2
of dose beyond the ends."""

_BLUR_PX, _STEP_PX = 4.0, 8


@dataclass(frozen=True, slots=True)
class ScoredSlice:
    """One image. score: readers' mean, 0..4. slice.patient: images of one slice share it."""

    slice: CleanSlice
    score: float


def scored_slices(data: Path) -> list[ScoredSlice]:
    """List the images of `data`/LDCTIQAG2023_train; none where the folder is not there.

    Raises Misconfigured when train.json is missing or no table of scores, or an image is missing.
    """
    folder = data / FOLDER
    if not folder.is_dir():
        return []
    paths = {}
    for name, score in _scores(folder / "train.json").items():
        path = folder / "image" / (name if name.endswith(".tif") else f"{name}.tif")
        if not path.is_file():
            raise Misconfigured(f"{path} does not exist, but train.json gives it a score")
        paths[path] = score
    groups = same_slice([read_slice(path) for path in paths])
    return [
        ScoredSlice(CleanSlice(path, f"LDCTIQAC-{group}", "abdomen", float("nan")), score)
        for (path, score), group in zip(paths.items(), groups, strict=True)
    ]


def same_slice(slices: Sequence[FloatArray]) -> list[int]:
    """Give images that show one slice, whatever its noise, one number; (n,) in order."""
    seen = [
        ndi.gaussian_filter(np.asarray(hu, np.float64), _BLUR_PX)[::_STEP_PX, ::_STEP_PX].ravel()
        for hu in slices
    ]
    alike = np.atleast_2d(np.corrcoef(np.stack(seen))) > SAME_SLICE
    return [int(group) for group in graph.connected_components(alike, directed=False)[1]]


def row_of(scored: ScoredSlice, hu: FloatArray, fold: int) -> Row:
    """Put down what is known of an image: its score as the label, and its noise."""
    u = float(np.clip(unsquash(scored.score), *LABEL_RANGE))
    unknown = float("nan")
    return Row(
        file=scored.slice.patient,
        patient=scored.slice.patient,
        fold=fold,
        region=scored.slice.region,
        kind=KIND,
        kernel="",
        dose=unknown,
        detail=f"{scored.slice.path.name}, readers: {scored.score:g}",
        tested_only=False,
        own=unknown,
        inserted=unknown,
        streaks=unknown,
        transfer=(1.0, 1.0, 1.0),
        u=u,
        source_u=u,
        noise=noise_hu(hu, even_tissue(hu)),
    )


@dataclass(frozen=True, slots=True)
class Readers:
    """How scores agree with those of readers. krocc: Kendall's tau-b. mae, bias: in points."""

    plcc: float
    srocc: float
    krocc: float
    mae: float
    bias: float


def against_readers(readers: Float64Array, scores: Float64Array) -> Readers:
    """Compare scores with readers' means, (n,) each, n > 1: the challenge's three, and two more.

    The challenge adds up |PLCC|, |SROCC| and |KROCC|, which no bias can lower.
    """
    from scipy.stats import kendalltau, pearsonr, spearmanr

    return Readers(
        plcc=float(pearsonr(readers, scores).statistic),
        srocc=float(spearmanr(readers, scores).statistic),
        krocc=float(kendalltau(readers, scores).statistic),
        mae=float(np.abs(scores - readers).mean()),
        bias=float((scores - readers).mean()),
    )


def _scores(path: Path) -> dict[str, float]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(score) for name, score in table.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Misconfigured(
            f"{path}: expected a JSON table of scores by name ({type(error).__name__}); unpack the "
            f"challenge's training archive into the folder of --data"
        ) from error
