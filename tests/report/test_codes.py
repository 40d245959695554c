"""The table of codes keeps the rules of the standard and of viewers."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.coding import Code

from tfkt_node.records import Confidence, Outcome, Population, Reason, Verdict
from tfkt_node.report import codes

EVERY_CODE = [value for value in vars(codes).values() if isinstance(value, Code)]


def test_every_enum_member_has_a_code() -> None:
    """No verdict, confidence, population, outcome or reason is left without a code."""
    assert set(Verdict) == set(codes.VERDICTS)
    assert set(Confidence) == set(codes.CONFIDENCES)
    assert set(Population) == set(codes.POPULATIONS)
    assert set(Outcome) == set(codes.OUTCOMES)
    assert set(Reason) == set(codes.REASONS)


def test_private_codes_are_unique_short_and_ascii() -> None:
    """A code value stands for one meaning; both fit their VR in any character set."""
    private = codes.private_codes()
    every = [
        *EVERY_CODE,
        *codes.FLAGS.values(),
        *codes.CONFIDENCES.values(),
        *codes.POPULATIONS.values(),
        *codes.OUTCOMES.values(),
        *codes.REASONS.values(),
    ]

    assert {code for code in every if code.scheme_designator == codes.SCHEME} == set(private)
    assert len(private) == len({code.meaning for code in private})
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in every)
    assert all(code.meaning.isascii() for code in every)
    assert len(codes.SCHEME) <= 16


def test_names_of_measurements_fit_beside_an_image() -> None:
    """OHIF cuts labels that run past the right edge: private names have at most 30 characters."""
    names = [code for code in codes.private_codes() if code.value.startswith("N")]

    assert names
    assert all(len(code.meaning) <= 30 for code in names)


@pytest.mark.parametrize(
    "code", [c for c in EVERY_CODE if c.scheme_designator in ("DCM", "SCT")], ids=lambda c: c.value
)
def test_standard_codes_are_those_of_the_standard(code: Code) -> None:
    """Value and meaning agree with pydicom's copy of PS3.16."""
    meanings = {
        known[code.value][0].lower()
        for known in concepts[code.scheme_designator].values()
        if code.value in known
    }

    said = code.meaning.lower()
    assert any(meaning.removesuffix(" (attribute)") == said for meaning in meanings)
