"""Apply the criteria in force to the stacks of a revision (design, section 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tfkt_node.records import (
    Confidence,
    CriteriaInForce,
    Population,
    Reason,
    StackSummary,
    Verdict,
)
from tfkt_node.settings import CriteriaByPopulation, digest

UNSURE_CHANCE = 0.1
"""Chance that the true score lies on the other side of the flag's threshold, above which a verdict
is LOW_CONFIDENCE(INTERVAL). Only that threshold counts: verdicts are one point wide, and intervals
would cross one or the other for most series."""

SIGMAS_OF_INTERVAL = 1.645
"""A side of a 90 % interval, in standard deviations of a normal error."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the criteria say. deciding_stack: index of the stack that gave the verdict."""

    deciding_stack: int
    verdict: Verdict
    confidence: Confidence
    confidence_reasons: tuple[Reason, ...]
    flagged: bool


def in_force(settings: CriteriaByPopulation, population: Population) -> CriteriaInForce:
    """Return the criteria of a population, with the digest that names exactly these values."""
    chosen = settings.child if population is Population.CHILD else settings.adult
    return CriteriaInForce(
        population=population,
        diagnostic_from=chosen.diagnostic_from,
        limited_from=chosen.limited_from,
        flag_at=chosen.flag_at,
        min_slices=chosen.min_slices,
        owner=chosen.owner,
        digest=digest(chosen),
    )


def verdict_of(score: float, criteria: CriteriaInForce) -> Verdict:
    """Return the verdict of a score: DIAGNOSTIC and LIMITED from their thresholds upwards."""
    if score >= criteria.diagnostic_from:
        return Verdict.DIAGNOSTIC
    return Verdict.LIMITED if score >= criteria.limited_from else Verdict.NON_DIAGNOSTIC


def decide(
    stacks: Sequence[StackSummary], criteria: CriteriaInForce, *, age_known: bool
) -> Decision | None:
    """Give a revision its verdict; None where no stack has a score.

    The worst stack with `min_slices` in-scope slices decides; where none has so many, the best
    populated one does and the verdict is LOW_CONFIDENCE(TOO_FEW_SLICES). Other reasons for low
    confidence: COVERAGE (slices missing or repeated in the deciding stack), AGE_UNKNOWN, INTERVAL
    (the threshold of the flag is crossed with a chance over one in ten).
    """
    scored = [(index, one.score, one) for index, one in enumerate(stacks) if one.score is not None]
    if not scored:
        return None
    populated = [entry for entry in scored if entry[2].in_scope >= criteria.min_slices]
    if populated:
        index, score, stack = min(populated, key=lambda entry: entry[1])
    else:
        index, score, stack = max(scored, key=lambda entry: (entry[2].in_scope, -entry[1]))
    doubts = {
        Reason.TOO_FEW_SLICES: not populated,
        Reason.COVERAGE: stack.gaps > 0 or stack.repeated > 0,
        Reason.AGE_UNKNOWN: not age_known,
        Reason.INTERVAL: _may_cross(score, stack.interval, criteria.flag_below),
    }
    reasons = tuple(reason for reason, holds in doubts.items() if holds)
    verdict = verdict_of(score, criteria)
    return Decision(
        deciding_stack=index,
        verdict=verdict,
        confidence=Confidence.LOW_CONFIDENCE if reasons else Confidence.CONFIDENT,
        confidence_reasons=reasons,
        flagged=verdict.severity >= criteria.flag_at.severity,
    )


def _may_cross(score: float, interval: tuple[float, float] | None, threshold: float | None) -> bool:
    """Judge each side of the interval as that of a normal error."""
    if interval is None or threshold is None:
        return False
    width = score - interval[0] if score >= threshold else interval[1] - score
    if width <= 0:
        return False
    deviations = SIGMAS_OF_INTERVAL * abs(score - threshold) / width
    return 0.5 * math.erfc(deviations / math.sqrt(2)) > UNSURE_CHANCE
