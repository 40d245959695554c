from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verdict.stacks import summary
from tfkt_node.records import Confidence, CriteriaInForce, Population, Reason, Verdict
from tfkt_node.settings import Criteria, CriteriaByPopulation
from tfkt_node.verdict.criteria import Decision, chance_beyond, decide, in_force, verdict_of

SETTINGS = CriteriaByPopulation()
ADULT = in_force(SETTINGS, Population.ADULT)

ERRORS = tuple(np.linspace(-0.6, 0.6, 13))

scores = st.floats(0, 4).map(lambda score: round(score, 4))
stacks = st.lists(st.lists(scores | st.none(), min_size=1, max_size=9), min_size=1, max_size=4)


def decided(*stacks: list[float | None], criteria: CriteriaInForce = ADULT) -> Decision:
    decision = decide(
        [summary(one) for one in stacks], criteria, age_known=True, errors=ERRORS, doubts={}
    )
    assert decision is not None
    return decision


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (4, Verdict.DIAGNOSTIC),
        (2.5, Verdict.DIAGNOSTIC),
        (2.4999, Verdict.LIMITED),
        (1.5, Verdict.LIMITED),
        (1.4999, Verdict.NON_DIAGNOSTIC),
        (0, Verdict.NON_DIAGNOSTIC),
    ],
)
def test_thresholds_belong_to_the_better_verdict(score: float, verdict: Verdict) -> None:
    """DIAGNOSTIC from 2.5, LIMITED from 1.5."""
    assert verdict is verdict_of(score, ADULT)


@settings(deadline=None)
@given(scores, scores)
def test_better_score_never_gives_a_worse_verdict(one: float, other: float) -> None:
    """Verdicts follow the score's order."""
    low, high = sorted([one, other])

    assert verdict_of(high, ADULT).severity <= verdict_of(low, ADULT).severity


@settings(deadline=None)
@given(stacks)
def test_worst_populated_stack_decides(values: list[list[float | None]]) -> None:
    """No stack with enough slices scores under the deciding one; without such, the fullest does."""
    summaries = [summary(one) for one in values]
    decision = decide(summaries, ADULT, age_known=True, errors=ERRORS, doubts={})

    scored = [one for one in summaries if one.score is not None]
    populated = [one for one in scored if one.in_scope >= ADULT.min_slices]
    if decision is None:
        assert not scored
        return
    deciding = summaries[decision.deciding_stack]
    assert deciding.score is not None
    assert decision.verdict is verdict_of(deciding.score, ADULT)
    assert (Reason.TOO_FEW_SLICES in decision.confidence_reasons) == (not populated)
    if populated:
        assert deciding.score == min(one.score for one in populated if one.score is not None)
    else:
        assert deciding.in_scope == max(one.in_scope for one in scored)


@settings(deadline=None)
@given(stacks)
def test_low_confidence_has_a_reason_and_sure_verdicts_have_none(
    values: list[list[float | None]],
) -> None:
    """CONFIDENT and a reason exclude each other."""
    decision = decide(
        [summary(one) for one in values], ADULT, age_known=True, errors=ERRORS, doubts={}
    )

    if decision is not None:
        is_sure = decision.confidence is Confidence.CONFIDENT
        assert is_sure == (not decision.confidence_reasons)


def test_few_bad_slices_do_not_outvote_a_full_stack() -> None:
    """Four bad slices are no verdict where another stack has five."""
    decision = decided([0.5] * 4, [3.8] * 5)

    assert (decision.deciding_stack, decision.verdict) == (1, Verdict.DIAGNOSTIC)
    assert decision.confidence is Confidence.CONFIDENT


def test_too_few_slices_decide_without_confidence() -> None:
    """A verdict on one slice is given, and said to be unsure."""
    decision = decided([0.5])

    assert (decision.verdict, decision.flagged) == (Verdict.NON_DIAGNOSTIC, True)
    assert decision.confidence_reasons == (Reason.TOO_FEW_SLICES,)


def test_nothing_in_scope_is_no_verdict() -> None:
    """A score is never invented (P6)."""
    assert decide([summary([None, None])], ADULT, age_known=True, errors=ERRORS, doubts={}) is None
    assert decide([], ADULT, age_known=True, errors=ERRORS, doubts={}) is None


@pytest.mark.parametrize(
    ("flag_at", "flagged"),
    [
        (Verdict.DIAGNOSTIC, [True, True, True]),
        (Verdict.LIMITED, [False, True, True]),
        (Verdict.NON_DIAGNOSTIC, [False, False, True]),
    ],
)
def test_flag_is_set_at_its_verdict_and_below(flag_at: Verdict, flagged: list[bool]) -> None:
    """`flag_at` names the best verdict that is still flagged."""
    criteria = replace(ADULT, flag_at=flag_at)

    assert flagged == [decided([score] * 5, criteria=criteria).flagged for score in (3.0, 2.0, 1.0)]


def test_holes_and_unknown_age_lower_the_confidence_of_the_deciding_stack_only() -> None:
    """COVERAGE speaks of the stack that decided."""
    holed = summary([3.9] * 9, gaps=1)
    doubled = summary([3.9] * 9, repeated=1)
    worse = summary([3.8] * 9)
    unknown = replace(summary([3.9] * 9), gaps=None, repeated=None)

    def reasons(*summaries: object, age_known: bool = True) -> tuple[Reason, ...]:
        decision = decide(summaries, ADULT, age_known=age_known, errors=ERRORS, doubts={})  # type: ignore[arg-type]
        assert decision is not None
        return decision.confidence_reasons

    assert reasons(holed) == (Reason.COVERAGE,)
    assert reasons(doubled) == (Reason.COVERAGE,)
    assert reasons(holed, worse) == ()
    assert reasons(unknown) == ()  # nothing is known to be missing: the doubt is another
    assert reasons(worse, age_known=False) == (Reason.AGE_UNKNOWN,)


@pytest.mark.parametrize(
    ("score", "is_unsure"), [(2.1, False), (2.3, True), (2.5, True), (2.7, True), (2.9, False)]
)
def test_interval_counts_only_near_the_threshold_of_the_flag(score: float, is_unsure: bool) -> None:
    """Errors of up to 0.6 do not make every LIMITED unsure; a coin's toss at 2.5 is."""
    assert is_unsure == (Reason.INTERVAL in decided([score] * 5).confidence_reasons)


@pytest.mark.parametrize(
    ("score", "chance"), [(3.2, 0), (2.8, 0.25), (2.5, 0.5), (2.4999, 0.5), (2.2, 0.25), (1.8, 0)]
)
def test_chance_is_the_share_of_errors_that_reach_beyond(score: float, chance: float) -> None:
    """Errors spread evenly over -0.6 to 0.6: a quarter of them is beyond 0.3."""
    assert chance_beyond(2.5, score, ERRORS) == pytest.approx(chance, abs=1e-3)


def test_chance_knows_that_a_model_says_too_much() -> None:
    """Where the true score is mostly lower, a score just over the threshold is mostly wrong."""
    too_high = (-1.0, -0.5, 0.0)

    assert chance_beyond(2.5, 2.6, too_high) == pytest.approx(0.9)
    assert chance_beyond(2.5, 2.4, too_high) == 0


def test_doubts_of_the_deciding_stack_lower_the_confidence() -> None:
    """What its own slices give against a score is said beside the verdict; others' doubts not."""
    summaries = [summary([3.9] * 5), summary([2.0] * 5)]
    doubts = {0: [Reason.KERNEL], 1: [Reason.PHYSICS]}

    decision = decide(summaries, ADULT, age_known=True, errors=ERRORS, doubts=doubts)

    assert decision is not None
    assert decision.deciding_stack == 1
    assert decision.confidence is Confidence.LOW_CONFIDENCE
    assert decision.confidence_reasons == (Reason.PHYSICS,)


def test_each_population_has_its_own_criteria_and_their_digest() -> None:
    """The digest names exactly the values a verdict was made with."""
    settings = CriteriaByPopulation(child=Criteria(diagnostic_from=3.0, owner="paediatrics"))
    adult, child = (in_force(settings, population) for population in Population)

    assert (adult.diagnostic_from, child.diagnostic_from) == (2.5, 3.0)
    assert child.owner == "paediatrics"
    assert adult.digest == ADULT.digest != child.digest
