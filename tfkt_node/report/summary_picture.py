"""One picture of a verdict, for viewers that show no Structured Report (Secondary Capture, RGB).

Made for 1,024 x 1,024 pixels on a dark screen. Colours are those of Okabe and Ito, and every
difference of colour is one of shape as well. Nothing in it names patient, study or series.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from tfkt_node.records import FloatArray, MadeObject, ReportRecord, SliceScore, StackSummary
from tfkt_node.report.document import make_picture
from tfkt_node.report.findings import (
    DESCRIPTIONS,
    deciding_stack,
    lowest,
    reference,
    score_of,
    scored_evidence,
    verdict_of,
)
from tfkt_node.report.summary import how_sure, place, plain_number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_PIXELS = 1024
DPI = 100
BACKGROUND, INK, FAINT = "#000000", "#FFFFFF", "#B0B0B0"
GOOD = ("#56B4E9", "o", "diagnostic")
BAD = ("#E69F00", "v", "below diagnostic")
"""Colour, marker and words of the slices on either side of `diagnostic_from`."""
WINDOW_HU = (-160.0, 240.0)
"""Width 400, level 40: soft tissue."""


def build(record: ReportRecord, worst_slice: FloatArray | None) -> MadeObject:
    """Make the picture of an ASSESSED verdict.

    worst_slice: the deciding stack's lowest-scoring slice in HU, (rows, columns); None where it
    cannot be read. The same record and slice give the same bytes. Raises Permanent where the record
    contradicts itself.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    a = record.assessment
    figure = draw(record, worst_slice)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
    source = reference(lowest(deciding_stack(a)), scored_evidence(record))
    description = f"CT image quality picture: {DESCRIPTIONS[verdict_of(a)]}"
    return make_picture(record, description, pixels, source)


def draw(record: ReportRecord, worst_slice: FloatArray | None) -> Figure:
    """Draw verdict, curve and worst slice."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Defaults, whatever the user's own style says; and the font that matplotlib brings.
    with mpl.rc_context({**mpl.rcParamsDefault, "font.family": "DejaVu Sans", "font.size": 13}):
        figure = Figure(
            figsize=(SIDE_PIXELS / DPI, SIDE_PIXELS / DPI), dpi=DPI, facecolor=BACKGROUND
        )
        _write_verdict(figure, record)
        _draw_curve(figure.add_axes((0.09, 0.42, 0.75, 0.3)), record)
        _draw_worst(figure, record, worst_slice)
        return figure


def _write_verdict(figure: Figure, record: ReportRecord) -> None:
    a = record.assessment
    stack = deciding_stack(a)
    words = list(short(a))
    score = f"Score {plain_number(score_of(stack))} of 4"
    # Five lines hold every reason there is, and end above the curve's legend.
    lines = "\n".join(textwrap.wrap(how_sure(a), 104, max_lines=5, placeholder=" ..."))
    figure.text(0.04, 0.965, "CT image quality", color=FAINT, fontsize=16, va="top")
    figure.text(0.04, 0.94, words[0], color=INK, fontsize=30, va="top", weight="bold")
    figure.text(0.96, 0.94, score, color=INK, fontsize=22, va="top", ha="right")
    figure.text(0.04, 0.885, lines, color=INK, fontsize=13, va="top", linespacing=1.4)


def _draw_curve(axes: Axes, record: ReportRecord) -> None:
    a = record.assessment
    stack = deciding_stack(a)
    x, label = _places(stack)
    axes.set_facecolor(BACKGROUND)
    scored = [one for one in stack.slices if one.score is not None]
    axes.plot(
        [x[one] for one in scored], [score_of(one) for one in scored], color=FAINT, linewidth=0.8
    )
    for (colour, marker, words), below in ((GOOD, False), (BAD, True)):
        group = [
            (x[one], score_of(one))
            for one in scored
            if (score_of(one) < a.criteria.diagnostic_from) is below
        ]
        if group:
            axes.plot(
                *zip(*group, strict=True), marker, color=colour, markersize=6, linestyle="none",
                label=words,
            )  # fmt: skip
    without = [x[one] for one in stack.slices if one.score is None]
    if without:
        axes.plot(
            without, [0.08] * len(without), "x", color=FAINT, linestyle="none", label="out of scope"
        )
    worst = lowest(stack)
    if worst in x:
        axes.plot(
            x[worst], score_of(worst), "o", markersize=16, markerfacecolor="none",
            markeredgecolor=INK, markeredgewidth=2, linestyle="none", label="worst slice",
        )  # fmt: skip
    for value, words in (
        (a.criteria.diagnostic_from, "diagnostic"), (a.criteria.limited_from, "limited"),
    ):  # fmt: skip
        axes.axhline(value, color=FAINT, linestyle="--", linewidth=1)
        axes.annotate(
            f"{words}\nfrom {plain_number(value)}", (1.01, value), color=FAINT, va="center",
            xycoords=("axes fraction", "data"),
        )  # fmt: skip
    axes.set(ylim=(-0.1, 4.15), xlabel=label, ylabel="score, 0 to 4")
    axes.tick_params(colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.spines[:].set_color(FAINT)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, frameon=False, labelcolor=INK
    )


def _places(stack: StackSummary) -> tuple[dict[SliceScore, float], str]:
    """Return where each slice stands along the curve, and what the axis is called."""
    known = {one: one.position_mm for one in stack.slices if one.position_mm is not None}
    if len(known) < len(set(stack.slices)):
        return {one: float(n) for n, one in enumerate(stack.slices, start=1)}, "slice"
    return known, "position, mm"


def _draw_worst(figure: Figure, record: ReportRecord, worst_slice: FloatArray | None) -> None:
    stack = deciding_stack(record.assessment)
    worst = lowest(stack)
    axes = figure.add_axes((0.04, 0.02, 0.36, 0.34))
    axes.set_axis_off()
    if worst_slice is None:
        axes.text(0.5, 0.5, "the slice cannot be read again", color=FAINT, ha="center")
    else:
        axes.imshow(worst_slice, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
    evidence = {item.sop_uid: item for item in record.evidence}
    lines = [
        "Worst slice",
        f"{place(worst, evidence)}: score {plain_number(score_of(worst))}",
        "",
        f"Slices in scope: {stack.in_scope}, out of scope: {stack.out_of_scope}",
        f"Window of the picture: {WINDOW_HU[0]:g} to {WINDOW_HU[1]:g} HU",
        "",
        "The numbers are in the Structured Report",
        "of the same study.",
        "Found by a program; no person has verified it.",
    ]
    figure.text(0.44, 0.34, "\n".join(lines), color=INK, fontsize=14, va="top", linespacing=1.6)
