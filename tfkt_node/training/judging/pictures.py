"""The two pictures that a run leaves in its work folder, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array, squash
from tfkt_node.training import dataset
from tfkt_node.training.dataset import Row
from tfkt_node.training.judging import plots

EXAMPLES, SCORES = "examples.png", "scores.png"

LABELS = (0.0, 1.0, 2.0, 3.0, 4.0)
_NEAR = 0.15
_CUT = 96


def examples(work: Path, seed: int) -> None:
    """Write `work`/examples.png: a slice of each kind for each label, in the soft-tissue window.

    Would a radiologist agree with the rows? To be looked at before anything is fitted.
    """
    found = dataset.load(work)
    labels = squash([row.u for row in found.rows])
    kinds = list(dict.fromkeys(row.kind for row in found.rows if row.kind != "clean"))
    rng = np.random.default_rng(seed)
    shown = {}
    for label in LABELS:
        row = []
        for kind in kinds:
            near = [
                place
                for place, one in enumerate(found.rows)
                if one.kind == kind and abs(labels[place] - label) < _NEAR
            ]
            if near:
                place = int(rng.choice(near))
                words = f"{kind}, {found.rows[place].detail or f'{found.rows[place].dose:.2f}'}"
                row.append(plots.Example(found.hu(place)[_CUT:-_CUT, _CUT:-_CUT], words))
        shown[label] = row
    plots.rows(work / EXAMPLES, shown)


def scores(
    path: Path,
    rows: Sequence[Row],
    u: Float64Array,
    anchors: Sequence[tuple[float, float]],
    seed: int,
) -> None:
    """Write scores against labels as a PNG; u: (n,). anchors: (readers' score, score)."""
    judged = plots.Judged(
        squash([row.u for row in rows]),
        squash(u),
        [row.kind for row in rows],
        [row.patient for row in rows],
    )
    plots.scatter(path, judged, anchors, seed)
