from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfkt_node.records import Population
from tfkt_node.verdict.populations import age_years, population


@pytest.mark.parametrize(
    ("age", "birth", "study", "expected"),
    [
        ("060Y", "", "", Population.ADULT),
        ("018Y", "", "", Population.ADULT),
        ("017Y", "", "", Population.CHILD),
        ("003D", "", "", Population.CHILD),
        ("008M", "", "", Population.CHILD),
        ("216M", "", "", Population.ADULT),
        ("215M", "", "", Population.CHILD),
        ("900W", "", "", Population.CHILD),
        ("999Y", "", "", None),
        ("000Y", "", "", None),
        ("000Y", "19400101", "20180301", Population.ADULT),
        ("000Y", "20180101", "20180301", Population.CHILD),
        ("000D", "", "", Population.CHILD),
        ("000M", "", "", Population.CHILD),
        ("50", "", "", None),
        ("abc", "", "", None),
        ("", "", "", None),
        ("", "20000229", "20180228", Population.CHILD),
        ("", "20000229", "20180301", Population.ADULT),
        ("", "20000301", "20180301", Population.ADULT),  # on the very birthday
        ("", "20100101", "20180301", Population.CHILD),
        ("999Y", "20100101", "20180301", Population.CHILD),
        ("060Y", "20100101", "20180301", Population.ADULT),
        ("", "20180302", "20180301", None),
        ("", "18500101", "20180301", None),
        ("", "00000000", "20180301", None),
        ("", "20100101", "99999999", None),
        ("", "2010", "20180301", None),
    ],
)
def test_age_decides_whose_criteria_apply(
    age: str, birth: str, study: str, expected: Population | None
) -> None:
    """The stated age wins over the dates; what makes no sense is unknown, not a guess."""
    assert expected is population(age, birth, study, 18)


@settings(deadline=None)
@given(born=st.dates(date(1930, 1, 1), date(2020, 1, 1)), days=st.integers(0, 30000))
def test_age_from_dates_is_that_of_the_calendar(born: date, days: int) -> None:
    """Whole years between two dates, a year more on each birthday."""
    seen = date.fromordinal(born.toordinal() + days)
    years = age_years("", born.strftime("%Y%m%d"), seen.strftime("%Y%m%d"))

    assert years is not None
    assert -0.01 < days / 365.25 - years < 1.01


@settings(deadline=None)
@given(*[st.text("0123456789DWMY .-", max_size=9)] * 3)
def test_any_text_is_an_age_or_unknown(age: str, birth: str, study: str) -> None:
    """Headers may hold anything; nothing of it raises."""
    years = age_years(age, birth, study)

    assert years is None or 0 <= years <= 125
