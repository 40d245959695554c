"""The figures of a card that `train` prints: what was said of patients that were never seen.

The labels are computed: nothing here says how readers would score a clinical series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfkt_node.iqa.uncertainty import Float64Array, squash
from tfkt_node.settings import CriteriaByPopulation
from tfkt_node.training.dataset import Row
from tfkt_node.training.judging import behaviour, comparison, conformal
from tfkt_node.training.judging.measures import once, srocc

TRAIN = "tfkt-node train --recipe RECIPE --data DATA --work WORK --out OUT"
"""Prints the figures of `cross_validated_figures`."""
Named = Iterator[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the card, and the command that prints it."""

    name: str
    value: float
    command: str


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What was said of patients that whoever said it never saw.

    u: (n,). alone: what each member of the network says by itself, (members, n). otherwise: u of
    the same versions, turned or with other things around the body, (n,). rivals: name -> u, (n,).
    without_splines: u with all KAN coefficients at zero, (n,); None where there are none.
    """

    rows: Sequence[Row]
    u: Float64Array
    alone: Float64Array
    otherwise: Float64Array
    rivals: Mapping[str, Float64Array]
    without_splines: Float64Array | None = None


def cross_validated_figures(found: CrossValidated, coverage: float, seed: int) -> list[Figure]:
    """Return the figures that `train` prints; the same for the same seed."""
    return named_figures(
        TRAIN,
        (
            *_agreement(found),
            *_gains(found, seed),
            *behaviour_figures(found.rows, found.u),
            *_otherwise(found),
            *_splines(found),
            *_uncertainty(found, coverage, seed),
        ),
    )


def named_figures(command: str, named: Iterable[tuple[str, float]]) -> list[Figure]:
    """Return figures with 4 decimals; those that do not exist (NaN) are left out."""
    return [
        Figure(name, round(float(value), 4), command)
        for name, value in named
        if math.isfinite(value)
    ]


def _agreement(found: CrossValidated) -> Named:
    for one in comparison.agreement(found.rows, found.u):
        yield f"{one.subset}: patients", one.patients
        yield f"{one.subset}: versions", one.versions
        yield f"{one.subset}: SROCC", one.srocc
        yield f"{one.subset}: PLCC", one.plcc
        yield f"{one.subset}: MAE of u", one.mae_u
        yield f"{one.subset}: MAE of score", one.mae_score
    truth, everything = np.array([row.u for row in found.rows]), once(len(found.rows))
    alone = [srocc(truth, u, everything)[0] for u in found.alone]
    yield "all: SROCC of a member alone, mean", float(np.mean(alone))


def _gains(found: CrossValidated, seed: int) -> Named:
    for one in comparison.gains(found.rows, found.u, found.rivals, seed):
        yield f"{one.subset}: SROCC of {one.rival}", one.rival_srocc
        yield f"{one.subset}: SROCC over {one.rival}", one.gain
        yield f"{one.subset}: SROCC over {one.rival}, 95 % low", one.low
        yield f"{one.subset}: SROCC over {one.rival}, 95 % high", one.high


def behaviour_figures(rows: Sequence[Row], u: Float64Array) -> Named:
    """Yield what must hold whatever the label; u: (n,)."""
    order = behaviour.order_of_dose(rows, u)
    if order.size:
        yield "doses a factor 2 or more apart: share in order", float(order.mean())
        yield "doses a factor 2 or more apart: pairs", len(order)
    for name, tested_only in (("smoothed", False), ("smoothed by a filter never fitted to", True)):
        smoothing = behaviour.smoothing(rows, squash(u), tested_only=tested_only)
        yield f"{name}: mean change of score", smoothing.mean
        yield f"{name}: share over 0.1 above its source", smoothing.gained
    for name, smoothing in behaviour.smoothing_by_filter(rows, squash(u)).items():
        yield f"smoothed by {name}: mean change of score", smoothing.mean
        yield f"smoothed by {name}: share over 0.1 above its source", smoothing.gained
    apart = behaviour.child_differences(rows, squash(u), squash([row.u for row in rows]))
    if apart.size:
        yield "child against adult at equal noise: pairs", len(apart)
        yield "child against adult at equal noise: mean difference of score", float(apart.mean())
        yield "child against adult at equal noise: MAE of score", float(np.abs(apart).mean())
        yield (
            "child against adult at equal noise: share within 0.3",
            float((abs(apart) <= 0.3).mean()),
        )


def _otherwise(found: CrossValidated) -> Named:
    change = squash(found.otherwise) - squash(found.u)
    yield "turned, or other surroundings: mean change of score", float(change.mean())
    yield "turned, or other surroundings: MAE of score", float(np.abs(change).mean())
    yield "turned, or other surroundings: share within 0.3", float((np.abs(change) <= 0.3).mean())


def _splines(found: CrossValidated) -> Named:
    if found.without_splines is None:
        return
    change = np.abs(squash(found.without_splines) - squash(found.u))
    everything = once(len(found.rows))
    truth = np.array([row.u for row in found.rows])
    yield "splines at zero: mean change of score, absolute", float(change.mean())
    yield "splines at zero: largest change of score", float(change.max())
    yield (
        "splines at zero: SROCC with what was said before",
        float(srocc(found.u, found.without_splines, everything)[0]),
    )
    yield "splines at zero: SROCC", float(srocc(truth, found.without_splines, everything)[0])


def _uncertainty(found: CrossValidated, coverage: float, seed: int) -> Named:
    level = f"{coverage:.0%} interval"
    for what, errors in (
        ("slice", conformal.slice_errors(found.rows, found.u)),
        ("series by proxy", conformal.series_errors(found.rows, found.u)),
    ):
        below, above = conformal.interval(errors, coverage, seed)
        yield f"{level} of a {what}: below the score", below
        yield f"{level} of a {what}: above the score", above
        for name, covered in conformal.coverage_of(errors, coverage, seed).items():
            yield f"{level} of a {what}, {name}: share inside", covered.share
            yield f"{level} of a {what}, {name}: share inside, 95 % low", covered.low
            yield f"{level} of a {what}, {name}: share inside, 95 % high", covered.high
    threshold = CriteriaByPopulation().adult.diagnostic_from
    flags = conformal.flags(conformal.series_errors(found.rows, found.u), threshold, seed)
    yield "flag of a series by proxy: share unsure", flags.unsure
    yield "flag of a series by proxy: share right where sure", flags.right_where_sure
    yield "flag of a series by proxy: share right where unsure", flags.right_where_unsure
