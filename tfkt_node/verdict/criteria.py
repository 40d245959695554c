"""Apply the criteria in force to the stacks of a revision (design, section 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfkt_node.records import (
    Confidence,
    CriteriaInForce,
    Population,
    Reason,
    StackSummary,
    Verdict,
)
from tfkt_node.settings import CriteriaByPopulation, digest

UNSURE_CHANCE = 0.25
"""Chance that the true score lies on the other side of the flag's threshold, above which a verdict
is LOW_CONFIDENCE(INTERVAL). Only that threshold counts: verdicts are one point wide, and intervals
would cross one or the other for most series."""


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
    stacks: Sequence[StackSummary],
    criteria: CriteriaInForce,
    *,
    age_known: bool,
    errors: Sequence[float],
    doubts: Mapping[int, Collection[Reason]],
) -> Decision | None:
    """Give a revision its verdict; None where no stack has a score.

    errors: of a series, true less given score, as the bundle's card has them: quantiles at even
    steps from 0 to 100 %. doubts: reasons for low confidence found in reading the series, for the
    case that a stack decides, by its index.

    The worst stack with `min_slices` in-scope slices decides; where none has so many, the best
    populated one does and the verdict is LOW_CONFIDENCE(TOO_FEW_SLICES). Other reasons for low
    confidence: COVERAGE (slices missing or repeated in the deciding stack), AGE_UNKNOWN, INTERVAL
    (the true score lies beyond the threshold of the flag with a chance over UNSURE_CHANCE).
    """
    scored = [(index, one.score, one) for index, one in enumerate(stacks) if one.score is not None]
    if not scored:
        return None
    populated = [entry for entry in scored if entry[2].in_scope >= criteria.min_slices]
    if populated:
        index, score, stack = min(populated, key=lambda entry: entry[1])
    else:
        index, score, stack = max(scored, key=lambda entry: (entry[2].in_scope, -entry[1]))
    holding = {
        Reason.TOO_FEW_SLICES: not populated,
        Reason.COVERAGE: bool(stack.gaps or stack.repeated),
        Reason.AGE_UNKNOWN: not age_known,
        Reason.INTERVAL: criteria.flag_below is not None
        and chance_beyond(criteria.flag_below, score, errors) > UNSURE_CHANCE,
        **dict.fromkeys(doubts.get(index, ()), True),
    }
    reasons = tuple(reason for reason, holds in holding.items() if holds)
    verdict = verdict_of(score, criteria)
    return Decision(
        deciding_stack=index,
        verdict=verdict,
        confidence=Confidence.LOW_CONFIDENCE if reasons else Confidence.CONFIDENT,
        confidence_reasons=reasons,
        flagged=verdict.severity >= criteria.flag_at.severity,
    )


def chance_beyond(threshold: float, score: float, errors: Sequence[float]) -> float:
    """Return the chance that the true score lies on the other side of a threshold, 0..1.

    errors: true less given score, quantiles at even steps from 0 to 100 %, rising.
    """
    below = float(np.interp(threshold - score, errors, np.linspace(0, 1, len(errors))))
    return below if score >= threshold else 1 - below
