"""Pictures for those who judge a model: scores against labels, and rows of slices by label.

They take plain arrays and know nothing of recipes or bundles. Colours are those of Okabe and Ito,
each with a marker of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.training.judging import bootstrap
from tfkt_node.training.judging.measures import once, srocc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tfkt_node.records import FloatArray

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Width 400, level 40: how readers look at noise."""

STYLES = (
    ("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"),
    ("#F0E442", "P"), ("#999999", "X"), ("#000000", "<"),
)  # fmt: skip
"""Colour and marker of each kind, in turn."""
ANCHOR = ("#D55E00", "*")

DPI = 110
LABEL_PX, WORDS_PX, GAP_PX = 70, 34, 6
"""Of a picture of rows: the column of labels, the words over a slice, what lies between two."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Images with what was meant and what was said; all (n,), scores 0..4.

    kinds: what was done to each image. patients: whose it is.
    """

    label: Float64Array
    said: Float64Array
    kinds: Sequence[str]
    patients: Sequence[str]


@dataclass(frozen=True, slots=True)
class Example:
    """A slice to look at: (rows, columns) HU, with a few words on what it is."""

    hu: FloatArray
    words: str


def scatter(path: Path, judged: Judged, anchors: Sequence[tuple[float, float]], seed: int) -> None:
    """Write a PNG: each score against its label, a panel a kind and one of all. Raises OSError.

    anchors: (readers' score, score), drawn in the panel of all. Titles give Spearman's correlation
    with its 95 % interval by patient; none below 8 patients.
    """
    kinds = list(dict.fromkeys(judged.kinds))
    figure, axes = _canvas(1 + len(kinds), across=3)
    everything = np.arange(len(judged.label))
    for index, kind in enumerate(kinds):
        at = np.flatnonzero(np.array(judged.kinds) == kind)
        _scatter(axes[0], judged, at, index, kind)
        _scatter(axes[1 + index], judged, at, index, kind)
        axes[1 + index].set_title(f"{kind}: {_agreement(judged, at, seed)}", fontsize=9)
    if anchors:
        readers, said = zip(*anchors, strict=True)
        colour, marker = ANCHOR
        axes[0].scatter(
            readers, said, s=160, c=colour, marker=marker, edgecolors="black",
            label="scored by readers", zorder=3,
        )  # fmt: skip
    axes[0].set_title(f"all: {_agreement(judged, everything, seed)}", fontsize=9)
    axes[0].legend(fontsize=7, loc="lower right")
    _save(figure, path)


def rows(path: Path, examples: Mapping[float, Sequence[Example]]) -> None:
    """Write a PNG with a row of slices for each label, highest first. Raises OSError.

    examples: label -> slices of one matrix. In the soft-tissue window, and one pixel of the slice
    is one of the PNG: noise looks other than it is when it is resampled.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = max(max(one.hu.shape) for row in examples.values() for one in row)
    wide = LABEL_PX + max(map(len, examples.values())) * (side + GAP_PX)
    tall = len(examples) * (side + WORDS_PX)
    figure = Figure(figsize=(wide / DPI, tall / DPI))
    FigureCanvasAgg(figure)
    for down, (label, row) in enumerate(sorted(examples.items(), reverse=True), start=1):
        bottom = tall - down * (side + WORDS_PX)
        figure.text(
            LABEL_PX / 2 / wide, (bottom + side / 2) / tall, f"{label:g}", fontsize=28, ha="center"
        )
        for across, example in enumerate(row):
            left = LABEL_PX + across * (side + GAP_PX)
            axes = figure.add_axes((left / wide, bottom / tall, side / wide, side / tall))
            axes.set_axis_off()
            low, high = SOFT_TISSUE_HU
            axes.imshow(example.hu, cmap="gray", vmin=low, vmax=high, interpolation="none")
            axes.set_title(example.words, fontsize=11)
    _save(figure, path)


def _canvas(count: int, across: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down = -(-count // across)
    figure = Figure(figsize=(4.6 * across, 4.6 * down), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for empty in panels[count:]:
        empty.set_axis_off()
    return figure, panels[:count]


def _scatter(axes: Axes, judged: Judged, at: np.ndarray, index: int, kind: str) -> None:
    colour, marker = STYLES[index % len(STYLES)]
    axes.scatter(
        judged.label[at], judged.said[at], s=14, c=colour, marker=marker, alpha=0.6,
        linewidths=0, label=kind,
    )  # fmt: skip
    axes.plot([0, 4], [0, 4], color="black", linewidth=0.8, zorder=0)
    axes.set(xlim=(-0.1, 4.1), ylim=(-0.1, 4.1), aspect="equal", xlabel="label", ylabel="score")


def _agreement(judged: Judged, at: np.ndarray, seed: int) -> str:
    patients = [judged.patients[place] for place in at]
    weights = np.concatenate([once(len(at)), bootstrap.draws(patients, seed)])
    found = srocc(judged.label[at], judged.said[at], weights)
    named = f"SROCC {found[0]:.3f}"
    count = len(set(patients))
    if count < bootstrap.MIN_PATIENTS:
        return f"{named}, {count} patients"
    low, high = bootstrap.bounds(found[1:])
    return f"{named} ({100 * bootstrap.LEVEL:.0f} %: {low:.3f} … {high:.3f}), {count} patients"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=DPI)
