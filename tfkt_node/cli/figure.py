"""The picture of a series: the score of every slice along the body, beside it the worst slice.

Holds no identifier of patient or study. Colours are those of Okabe and Ito, and every difference of
colour is one of shape or word as well, so that no eye and no printer loses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfkt_node.cli.output import confidence, number
from tfkt_node.records import (
    Assessment,
    FloatArray,
    InstanceRef,
    SetAside,
    SliceScore,
    StackSummary,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#6E6E6E"
ABOVE = ("#0072B2", "o", "DIAGNOSTIC")
BELOW = ("#D55E00", "v", "below DIAGNOSTIC")
"""Colour, marker and words of the slices on either side of `diagnostic_from`."""
WINDOW_HU = (-160.0, 240.0)
MOST_PANELS = 20
"""Series in one picture; the worst are drawn, and the title says how many were left out."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One series in the picture. worst: the instance that holds the lowest-scoring slice."""

    title: str
    assessment: Assessment
    worst: InstanceRef

    @property
    def stack(self) -> StackSummary:
        """The stack that gave the verdict."""
        assert self.assessment.deciding_stack is not None
        return self.assessment.stacks[self.assessment.deciding_stack]


def worst(panels: Sequence[Panel], most: int = MOST_PANELS) -> list[Panel]:
    """Return the `most` panels with the lowest scores, in the order given."""
    by_score = sorted(range(len(panels)), key=lambda index: panels[index].assessment.score or 0.0)
    return [panels[index] for index in sorted(by_score[:most])]


def draw(target: Path, panels: Sequence[Panel]) -> None:
    """Write a PNG with one row for each of the `worst` series. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = worst(panels)
    figure = Figure(figsize=(11, 4.1 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(1.55, 1))
    for (left, right), panel in zip(grid, shown, strict=True):
        _draw_scores(left, panel)
        _draw_worst(right, panel)
    if len(shown) < len(panels):
        figure.suptitle(f"The {len(shown)} series of {len(panels)} with the lowest scores")
    figure.savefig(target, format="png", dpi=110)


def _draw_scores(axes: Axes, panel: Panel) -> None:
    scored = [one for one in panel.stack.slices if one.score is not None]
    criteria = panel.assessment.criteria
    along, label = _places(panel.stack.slices)
    places = dict(zip(panel.stack.slices, along, strict=True))
    below = [one for one in scored if (one.score or 0.0) < criteria.diagnostic_from]
    above = [one for one in scored if one not in below]
    for group, style in ((above, ABOVE), (below, BELOW)):
        if group:
            _draw_group(axes, group, places, style)
    unscored = [places[one] for one in panel.stack.slices if one.score is None]
    if unscored:
        axes.plot(unscored, [0.06] * len(unscored), "x", color=GREY, label="out of scope")
    lowest = _lowest(panel)
    axes.plot(
        places[lowest], lowest.score or 0.0, "o", markersize=15, markerfacecolor="none",
        markeredgecolor="black", label="worst slice",
    )  # fmt: skip
    _draw_thresholds(axes, panel)
    axes.set(xlabel=label, ylabel="score, 0 to 4 (90 % interval)", ylim=(-0.1, 4.1))
    axes.set_title(
        f"{panel.title}{_which_stack(panel)}\n{_headline(panel.assessment)}",
        fontsize=11,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.16))


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


def _draw_worst(axes: Axes, panel: Panel) -> None:
    lowest = _lowest(panel)
    where = "" if lowest.position_mm is None else f" at {lowest.position_mm:.1f} mm"
    axes.set_title(f"worst slice{where}: score {number(lowest.score)}", fontsize=11, loc="left")
    axes.set_axis_off()
    try:
        hu, aspect = _decode(panel.worst, lowest.frame)
    except (SetAside, OSError):
        axes.text(0.5, 0.5, "the slice cannot be read again", ha="center", color=GREY)
        return
    axes.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=aspect)
    axes.text(
        0.01, 0.01, f"window {WINDOW_HU[0]:g} to {WINDOW_HU[1]:g} HU", color="white",
        fontsize=8, transform=axes.transAxes,
    )  # fmt: skip


def _decode(instance: InstanceRef, frame: int | None) -> tuple[FloatArray, float]:
    """Return a slice in HU and the height of its pixels over their width."""
    from tfkt_node.slices.decoding import decode_hu, read_dataset
    from tfkt_node.slices.geometry import slices_of

    ds = read_dataset(instance.path, pixels=True)
    spacing = slices_of(instance, ds)[(frame or 1) - 1].pixel_spacing_mm
    return decode_hu(ds, frame), spacing[0] / spacing[1] if spacing else 1.0


def _places(slices: Sequence[SliceScore]) -> tuple[list[float], str]:
    """Return where the slices are drawn: along the normal, or by their order."""
    positions = [one.position_mm for one in slices if one.position_mm is not None]
    if len(positions) == len(slices):
        return positions, "position along the body, mm"
    return [float(place) for place in range(1, len(slices) + 1)], "slice"


def _lowest(panel: Panel) -> SliceScore:
    lowest = panel.stack.minimum
    assert lowest is not None  # the deciding stack of an assessed series has scored slices
    return lowest


def _headline(assessment: Assessment) -> str:
    sure = confidence(assessment.confidence, assessment.confidence_reasons)
    flag = ", flagged" if assessment.flagged else ""
    return f"{assessment.verdict}, score {number(assessment.score)}, {sure}{flag}"
