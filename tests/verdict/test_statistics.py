from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verdict.stacks import around, slice_score, stack, summary
from tfkt_node.records import Reason
from tfkt_node.verdict.statistics import summarize

scores = st.floats(0, 4).map(lambda score: round(score, 4))


@settings(deadline=None)
@given(st.lists(scores | st.none(), min_size=1, max_size=30))
def test_summary_is_that_of_the_slices_in_scope(values: list[float | None]) -> None:
    """Median, tail and share are over in-scope slices only; all slices are counted once."""
    found = summary(values)
    inside = [value for value in values if value is not None]

    assert (found.in_scope, found.in_scope + found.out_of_scope) == (len(inside), len(values))
    if not inside:
        assert (found.score, found.interval, found.p10, found.minimum) == (None,) * 4
        assert found.below_threshold is None
        return
    assert found.score == pytest.approx(np.median(inside), abs=1e-4)
    assert found.p10 == pytest.approx(np.percentile(inside, 10), abs=1e-4)
    assert found.minimum is not None
    assert found.minimum.score == min(inside)
    assert found.below_threshold == pytest.approx(np.mean(np.array(inside) < 2.5), abs=1e-4)
    assert found.interval is not None
    assert found.interval[0] - 1e-4 <= found.score <= found.interval[1] + 1e-4


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=30))
def test_every_number_has_four_decimals(values: list[float]) -> None:
    """Audit, JSON and report agree exactly, because nothing is rounded later."""
    found = summary(values)
    assert found.interval is not None

    for number in (found.score, found.p10, found.below_threshold, *found.interval):
        assert number is not None
        assert number == round(number, 4)


def test_interval_is_that_of_the_score_of_a_series() -> None:
    """It comes from errors of series, not from how many slices there are or how sure each is."""
    sure = [replace(slice_score(number, 2.0), interval=(2.0, 2.0)) for number in range(500)]

    found = summarize(stack(500), sure, [], 2.5, lambda score: (score - 1, score + 0.5))

    assert (1.0, 2.5) == found.interval


def test_slice_at_the_threshold_is_not_below_it() -> None:
    """`diagnostic_from` belongs to DIAGNOSTIC."""
    assert summary([2.4999, 2.5]).below_threshold == 0.5


def test_first_of_equally_bad_slices_is_the_minimum() -> None:
    """The worst slice is the same one each time."""
    found = summary([3.0, 0.0, 0.0])
    assert found.minimum is not None

    assert found.minimum.sop_uid == "1.1"


def test_physics_are_medians_over_the_slices_that_have_them() -> None:
    """A slice without soft tissue does not turn the stack's noise into nothing."""
    measures = [
        {"noise_hu": 10.0, "water_equivalent_diameter_mm": None},
        {"noise_hu": None, "water_equivalent_diameter_mm": None},
        {"noise_hu": 13.00004, "water_equivalent_diameter_mm": None},
    ]
    slices = [slice_score(number, 3.0) for number in range(3)]

    found = summarize(stack(3), slices, measures, 2.5, around)

    assert {"noise_hu": 11.5, "water_equivalent_diameter_mm": None} == found.physics


def test_gaps_and_repeats_are_unknown_where_a_slice_has_no_place() -> None:
    """P6: none found is not none there, and nought would say so."""
    whole = stack(3)
    slices = [slice_score(number, 3.0) for number in range(3)]
    lost = replace(whole, slices=(*whole.slices[:2], replace(whole.slices[2], position_mm=None)))

    known, unknown = (summarize(one, slices, [], 2.5, around) for one in (whole, lost))

    assert (known.gaps, known.repeated) == (0, 0)
    assert (unknown.gaps, unknown.repeated) == (None, None)


def test_stack_keeps_its_name_and_its_holes() -> None:
    """What the report says of a stack comes from its geometry."""
    found = summary([3.0, None], gaps=2, repeated=1)

    assert (found.acquisition, found.orientation, found.kernel) == ("1", "AXIAL", "B30f")
    assert (found.rows, found.columns, found.spacing_mm) == (512, 512, 5.0)
    assert (found.gaps, found.repeated) == (2, 1)
    assert [None, Reason.NO_BODY] == [one.reason for one in found.slices]
