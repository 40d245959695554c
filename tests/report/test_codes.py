"""The table of codes keeps the rules of the standard and of viewers."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from tfkt_node.records import Confidence, Outcome, Population, Reason, Verdict
from tfkt_node.report import codes

UNKNOWN_TO_PYDICOM = {("RFC5646", "en"), ("UMLS", "C0034375"), ("UCUM", "mGy")}
"""Language (RFC 5646), a name of TID 1500, and a unit of CID 83 that its dictionary lacks."""


def test_every_enum_member_has_a_code() -> None:
    """No verdict, confidence, population, outcome or reason is left without a code."""
    assert set(Verdict) == set(codes.VERDICTS)
    assert set(Confidence) == set(codes.CONFIDENCES)
    assert set(Population) == set(codes.POPULATIONS)
    assert set(Outcome) == set(codes.OUTCOMES)
    assert set(Reason) == set(codes.REASONS)


def test_private_codes_are_unique_short_and_ascii() -> None:
    """A code value stands for one meaning; both fit their VR in any character set."""
    private, every = codes.private_codes(), codes.every_code()

    assert set(private) < set(every)
    assert {*codes.VERDICTS.values(), *codes.REASONS.values()} < set(every)
    assert len(private) == len({code.meaning for code in private})
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in every)
    assert all(code.meaning.isascii() for code in every)
    assert len(codes.SCHEME) <= 16


def test_names_of_measurements_fit_beside_an_image() -> None:
    """OHIF cuts labels that run past the right edge: private names have at most 30 characters."""
    names = [code for code in codes.private_codes() if code.value.startswith("N")]

    assert names
    assert all(len(code.meaning) <= 30 for code in names)


def is_standard(code: Code) -> bool:
    """Neither of the private scheme nor an annotation of UCUM, in which any word may stand."""
    return code.scheme_designator != codes.SCHEME and not code.value.startswith("{")


@pytest.mark.parametrize(
    "code", [c for c in codes.every_code() if is_standard(c)], ids=lambda c: c.value
)
def test_standard_codes_are_those_of_the_standard(code: Code) -> None:
    """Value and meaning agree with pydicom's copy of PS3.16, verdicts and physics included."""
    if (code.scheme_designator, code.value) in UNKNOWN_TO_PYDICOM:
        return
    meanings = {
        known[code.value][0].lower()
        for known in concepts[code.scheme_designator].values()
        if code.value in known
    }

    said = {"millimeter": "mm"}.get(code.meaning, code.meaning.lower())
    assert any(meaning.removesuffix(" (attribute)") == said for meaning in meanings)
