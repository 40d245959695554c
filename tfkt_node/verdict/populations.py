"""Say whose criteria apply: those of adults or of children, by the age at the study."""

from __future__ import annotations

import re
from datetime import date

from tfkt_node.records import Population

DAYS_PER_UNIT = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
NO_AGE = "000Y"
OLDEST_YEARS = 125
"""Ages beyond this are placeholders (999Y, a birth date of 1850), hence unknown."""


def population(
    patient_age: str, birth_date: str, study_date: str, child_below_years: int
) -> Population | None:
    """Return the population of a patient; None where the age is not known.

    patient_age: Patient's Age (0010,1010), nnnD, nnnW, nnnM or nnnY; else the age follows from
    birth_date (0010,0030) and study_date (0008,0020), YYYYMMDD. Odd values count as missing.
    """
    years = age_years(patient_age, birth_date, study_date)
    if years is None:
        return None
    return Population.CHILD if years < child_below_years else Population.ADULT


def age_years(patient_age: str, birth_date: str, study_date: str) -> float | None:
    """Return the age at the study in years; None where it is missing or makes no sense.

    "000Y" is no age: scanners fill it in where they know none, and infants have days or months.

    >>> age_years("018M", "", "")
    1.5
    """
    stated = re.fullmatch(r"([0-9]{3})([DWMY])", patient_age.strip())
    if stated and stated[0] != NO_AGE:
        years = round(int(stated[1]) * DAYS_PER_UNIT[stated[2]] / DAYS_PER_UNIT["Y"], 6)
        if years <= OLDEST_YEARS:
            return years
    born, seen = _date(birth_date), _date(study_date)
    if born is None or seen is None or seen < born:
        return None
    # Whole years by the calendar, so that a birthday counts on its day.
    had_birthday = (seen.month, seen.day) >= (born.month, born.day)
    years = seen.year - born.year - (0 if had_birthday else 1)
    return float(years) if years <= OLDEST_YEARS else None


def _date(value: str) -> date | None:
    if not re.fullmatch(r"[0-9]{8}", value.strip()):
        return None
    try:
        return date.fromisoformat(value.strip())
    except ValueError:
        return None
