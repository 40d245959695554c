"""Sum up a stack over its in-scope slices.

Robust on purpose: the median decides, and the low tail is shown beside it. Rounded to 4 decimals
here, so that audit, JSON and report agree exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tfkt_node.records import SliceScore, Stack, StackSummary

DECIMALS = 4


def summarize(
    stack: Stack,
    slices: Sequence[SliceScore],
    physics: Sequence[Mapping[str, float | None]],
    diagnostic_from: float,
    interval_of: Callable[[float], tuple[float, float]],
) -> StackSummary:
    """Sum up one stack.

    slices: those of the stack, in its order, in and out of scope. physics: measures of the
    in-scope slices; each name's median over the slices that have it goes into the summary.
    interval_of: the 90 % interval of a series' score, by the errors of series: the slices' own
    intervals do not tell it, for a patient's slices share most of their error.
    """
    scored = [one for one in slices if one.score is not None]
    scores = [one.score for one in scored if one.score is not None]
    score = _median(scores)
    first = stack.slices[0]
    has_places = all(one.position_mm is not None for one in stack.slices)
    return StackSummary(
        acquisition=stack.acquisition,
        orientation=stack.orientation,
        kernel=stack.kernel,
        rows=first.rows,
        columns=first.columns,
        score=score,
        interval=None if score is None else interval_of(score),
        p10=_rounded(float(np.percentile(scores, 10))) if scores else None,
        minimum=min(scored, key=lambda one: one.score or 0.0, default=None),
        below_threshold=_rounded(sum(value < diagnostic_from for value in scores) / len(scores))
        if scores
        else None,
        in_scope=len(scored),
        out_of_scope=len(slices) - len(scored),
        gaps=stack.gaps if has_places else None,
        repeated=stack.repeated if has_places else None,
        spacing_mm=stack.spacing_mm,
        physics={name: _median(_present(physics, name)) for name in _names(physics)},
        slices=tuple(slices),
    )


def _names(physics: Sequence[Mapping[str, float | None]]) -> list[str]:
    return sorted({name for measures in physics for name in measures})


def _present(physics: Sequence[Mapping[str, float | None]], name: str) -> list[float]:
    values = (measures.get(name) for measures in physics)
    return [value for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return _rounded(float(np.median(values))) if values else None


def _rounded(value: float) -> float:
    return round(value, DECIMALS)
