"""The picture of a series: its scores along the body, its worst and its best slice, and where.

Holds no identifier of patient or study. Colours are those of Okabe and Ito, that of the local
quality is made for colour-blind eyes (viridis); every difference of colour is one of shape or word
as well, so that no eye and no printer loses it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfkt_node.cli.output import confidence, number
from tfkt_node.iqa.bundle import GRID, Bundle
from tfkt_node.iqa.engine import fit_to_grid, open_engine
from tfkt_node.records import (
    Assessment,
    FloatArray,
    InstanceRef,
    SetAside,
    SliceScore,
    StackSummary,
)
from tfkt_node.settings import Limits, Scoring

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LocalScores = Callable[[FloatArray], FloatArray]
"""A slice in HU, of any matrix, to the score at each place of the network's square, (r, r)."""

Pixels = tuple[FloatArray, float]
"""A slice in HU, and the height of its pixels over their width."""

GREY = "#6E6E6E"
ABOVE = ("#0072B2", "o", "DIAGNOSTIC")
BELOW = ("#D55E00", "v", "below DIAGNOSTIC")
"""Colour, marker and words of the slices on either side of `diagnostic_from`."""
LOCAL_COLOURS = "viridis"
WINDOW_HU = (-160.0, 240.0)
"""Width 400, level 40: soft tissue."""
EVEN = 1e-3
"""Local scores that differ by less come from a network that knows no places."""
MOST_PANELS = 20
"""Series in one picture; the worst are drawn, and the title says how many were left out."""


TITLE_LETTERS = 62
"""What fits over the score curve in one line."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One series in the picture.

    instances: those that hold its slices, found by digest. limits: those that it was scored with.
    """

    title: str
    assessment: Assessment
    instances: Sequence[InstanceRef]
    limits: Limits = field(default_factory=Limits)

    @property
    def stack(self) -> StackSummary:
        """The stack that gave the verdict."""
        assert self.assessment.deciding_stack is not None
        return self.assessment.stacks[self.assessment.deciding_stack]

    @property
    def lowest(self) -> SliceScore:
        """The slice with the lowest score."""
        lowest = self.stack.minimum
        assert lowest is not None  # the deciding stack of an assessed series has scored slices
        return lowest

    @property
    def highest(self) -> SliceScore:
        """The slice with the highest score."""
        return max(self.stack.slices, key=lambda one: -1.0 if one.score is None else one.score)


def worst(panels: Sequence[Panel], most: int = MOST_PANELS) -> list[Panel]:
    """Return the `most` panels with the lowest scores, in the order given."""
    by_score = sorted(range(len(panels)), key=lambda index: panels[index].assessment.score or 0.0)
    return [panels[index] for index in sorted(by_score[:most])]


def local_scores(bundle: Bundle, scoring: Scoring) -> LocalScores:
    """Return what reads a slice once more, in this process, for its score by place.

    No audit keeps it: two slices a series are drawn. Raises Misconfigured or Permanent.
    """
    engine = open_engine(bundle, scoring.engine, scoring.device, streams=1)

    def read(hu: FloatArray) -> FloatArray:
        (local,) = engine.read(fit_to_grid(hu)[None]).local
        return bundle.calibration.scores(local).astype(np.float32)

    return read


def draw(target: Path, panels: Sequence[Panel], local_scores: LocalScores) -> None:
    """Write a PNG with one row for each of the `worst` series. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = worst(panels)
    figure = Figure(figsize=(17, 4.3 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), 4, squeeze=False, width_ratios=(1.6, 1, 1.12, 1))
    for (left, lowest, local, highest), panel in zip(grid, shown, strict=True):
        _draw_scores(left, panel)
        pixels = _draw_slice(lowest, panel, panel.lowest, "worst")
        local.set_axis_off()
        if pixels is not None:
            _draw_local(figure, local, pixels, local_scores)
        _draw_slice(highest, panel, panel.highest, "best")
    if len(shown) < len(panels):
        figure.suptitle(f"The {len(shown)} series of {len(panels)} with the lowest scores")
    figure.savefig(target, format="png", dpi=110)


def _draw_scores(axes: Axes, panel: Panel) -> None:
    stacks = panel.assessment.stacks
    along, label = _places(stacks)
    for stack in stacks:
        if stack is not panel.stack:
            scored = [one for one in stack.slices if one.score is not None]
            axes.plot(
                [along[one] for one in scored], [one.score or 0.0 for one in scored], ".-",
                color=GREY, alpha=0.6, linewidth=0.8, label="other stack",
            )  # fmt: skip
    _draw_deciding(axes, panel, along)
    _draw_thresholds(axes, panel)
    axes.set(xlabel=label, ylabel="score, 0 to 4 (90 % interval)", ylim=(-0.1, 4.1))
    axes.set_title(
        f"{panel.title}{_which_stack(panel)}\n{_headline(panel.assessment)}",
        fontsize=11,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))  # each word once
    axes.legend(
        handles.values(), handles, fontsize=8, ncols=3, frameon=False, loc="upper left",
        bbox_to_anchor=(0, -0.16),
    )  # fmt: skip


def _draw_deciding(axes: Axes, panel: Panel, along: dict[SliceScore, float]) -> None:
    scored = [one for one in panel.stack.slices if one.score is not None]
    threshold = panel.assessment.criteria.diagnostic_from
    below = [one for one in scored if (one.score or 0.0) < threshold]
    above = [one for one in scored if one not in below]
    for group, style in ((above, ABOVE), (below, BELOW)):
        if group:
            _draw_group(axes, group, along, style)
    unscored = [along[one] for one in panel.stack.slices if one.score is None]
    if unscored:
        axes.plot(unscored, [0.06] * len(unscored), "x", color=GREY, label="out of scope")
    for one, marker, size in ((panel.lowest, "o", 15), (panel.highest, "s", 13)):
        axes.plot(
            along[one], one.score or 0.0, marker, markersize=size, markerfacecolor="none",
            markeredgecolor="black", linestyle="none",
            label="worst slice" if marker == "o" else "best slice",
        )  # fmt: skip


def _which_stack(panel: Panel) -> str:
    stacks, deciding = panel.assessment.stacks, panel.assessment.deciding_stack
    if len(stacks) < 2 or deciding is None:
        return ""
    return f": stack {deciding + 1} of {len(stacks)}, which gave the verdict"


def _draw_group(
    axes: Axes,
    group: Sequence[SliceScore],
    places: dict[SliceScore, float],
    style: tuple[str, str, str],
) -> None:
    colour, marker, label = style
    x = [places[one] for one in group]
    scores = [one.score or 0.0 for one in group]
    bounds = [one.interval or (score, score) for one, score in zip(group, scores, strict=True)]
    low = [max(0.0, score - bound[0]) for score, bound in zip(scores, bounds, strict=True)]
    high = [max(0.0, bound[1] - score) for score, bound in zip(scores, bounds, strict=True)]
    axes.errorbar(
        x, scores, (low, high), fmt=marker, color=colour, markersize=5, elinewidth=0.9,
        alpha=0.9, label=label,
    )  # fmt: skip


def _draw_thresholds(axes: Axes, panel: Panel) -> None:
    criteria = panel.assessment.criteria
    for value, name, style in (
        (criteria.diagnostic_from, "DIAGNOSTIC", "--"),
        (criteria.limited_from, "LIMITED", ":"),
    ):
        axes.axhline(value, color=GREY, linestyle=style, linewidth=1.2, zorder=0)
        axes.annotate(
            f"{name}\nfrom {value:g}", (1.01, value), xycoords=("axes fraction", "data"),
            va="center", fontsize=8, color=GREY,
        )  # fmt: skip


def _draw_slice(axes: Axes, panel: Panel, one: SliceScore, which: str) -> Pixels | None:
    """Draw a slice in the soft-tissue window and return it; None where it is gone."""
    where = "" if one.position_mm is None else f" at {one.position_mm:.1f} mm"
    axes.set_title(f"{which} slice{where}: score {number(one.score)}", fontsize=11, loc="left")
    axes.set_axis_off()
    try:
        pixels = _decode(panel, one)
    except (SetAside, OSError, StopIteration):
        axes.text(0.5, 0.5, "the slice cannot be read again", ha="center", color=GREY)
        return None
    _show(axes, pixels)
    axes.text(
        0.01, 0.01, f"window {WINDOW_HU[0]:g} to {WINDOW_HU[1]:g} HU", color="white",
        fontsize=8, transform=axes.transAxes, bbox={"facecolor": "black", "linewidth": 0, "pad": 1},
    )  # fmt: skip
    return pixels


def _show(axes: Axes, pixels: Pixels) -> None:
    hu, aspect = pixels
    axes.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=aspect)


def _draw_local(figure: Figure, axes: Axes, pixels: Pixels, local_scores: LocalScores) -> None:
    """Draw where the quality of a slice is low, over the slice."""
    hu, aspect = pixels
    local = local_scores(hu)
    if np.ptp(local) < EVEN:
        axes.text(0.5, 0.5, "this bundle tells no places apart", ha="center", color=GREY)
        return
    axes.set_title("the worst slice's score by place", fontsize=11, loc="left")
    _show(axes, pixels)
    # The network sees the slice in the middle of a square of at least 512 pixels.
    rows, columns = hu.shape
    side = max(GRID, rows, columns)
    left, top = (columns - side) / 2 - 0.5, (rows - side) / 2 - 0.5
    image = axes.imshow(
        local, cmap=LOCAL_COLOURS, vmin=0, vmax=4, alpha=0.45, interpolation="bilinear",
        extent=(left, left + side, top + side, top), aspect=aspect,
    )  # fmt: skip
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    figure.colorbar(image, ax=axes, shrink=0.8)


def _decode(panel: Panel, one: SliceScore) -> Pixels:
    from tfkt_node.slices.decoding import decode_hu, read_dataset
    from tfkt_node.slices.geometry import slices_of

    instance = next(ref for ref in panel.instances if ref.digest == one.digest)
    ds = read_dataset(instance.path, pixels=True, limits=panel.limits)
    spacing = slices_of(instance, ds, panel.limits)[(one.frame or 1) - 1].pixel_spacing_mm
    return decode_hu(ds, one.frame, panel.limits), spacing[0] / spacing[1] if spacing else 1.0


def _places(stacks: Sequence[StackSummary]) -> tuple[dict[SliceScore, float], str]:
    """Return where the slices are drawn: along the normal, or each stack by its order."""
    known = {
        one: one.position_mm
        for stack in stacks
        for one in stack.slices
        if one.position_mm is not None
    }
    if len(known) == sum(len(stack.slices) for stack in stacks):
        return known, "position along the body, mm"
    by_order = {
        one: float(place) for stack in stacks for place, one in enumerate(stack.slices, start=1)
    }
    return by_order, "slice"


def _headline(assessment: Assessment) -> str:
    """Say verdict, score and flag, and how sure they are in lines of their own: it may be long."""
    sure = confidence(assessment.confidence, assessment.confidence_reasons)
    flag = ", flagged" if assessment.flagged else ""
    lines = textwrap.wrap(sure, TITLE_LETTERS)
    return "\n".join([f"{assessment.verdict}, score {number(assessment.score)}{flag}", *lines])
