"""The conformance statement says what the code does."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tfkt_node.delivery import store_scu
from tfkt_node.delivery.statuses import Receipt, meaning_of
from tfkt_node.records import CT_CLASSES, IMPLEMENTATION_CLASS_UID, Permanent, Retriable
from tfkt_node.report import codes, document
from tfkt_node.report.findings import DESCRIPTIONS
from tfkt_node.settings import Peer, Report

STATEMENT = (ROOT / "deploy" / "CONFORMANCE.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Rows of the first table below a line that begins so, without its head."""
    lines = STATEMENT[STATEMENT.index(f"\n{heading}") :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_code_is_listed_with_its_meaning() -> None:
    """No code is written that the statement does not name, and none named that is not written."""
    private = {(value, codes.SCHEME, meaning) for value, meaning in table("Private scheme 99TFKT")}
    standard = {tuple(row) for row in table("Codes of the standard")}

    assert private | standard == {
        (code.value, code.scheme_designator, code.meaning) for code in codes.every_code()
    }
    for stated in (codes.SCHEME_NAME, f"version {codes.SCHEME_VERSION}"):
        assert stated in STATEMENT


def test_objects_are_those_that_are_made() -> None:
    """SOP class, modality and series number, by which a PACS may route."""
    forms = [value for value in vars(document).values() if isinstance(value, document.Form)]
    listed = {(row[1], row[2], int(row[3])) for row in table("Objects that the node creates")}

    assert listed == {(form.sop_class_uid, form.modality, form.series_number) for form in forms}
    assert {uid for uid, _, _ in listed} == {uid for uid, _ in store_scu.OBJECTS}


def test_scored_classes_and_names_of_the_software() -> None:
    """What comes in, and who the node says it is."""
    assert {row[1] for row in table("### 5.1")} == CT_CLASSES
    assert IMPLEMENTATION_CLASS_UID in STATEMENT
    assert all(description in STATEMENT for description in DESCRIPTIONS.values())
    assert "sr_class" in Peer.model_fields
    for option in ("silent_reasons", "worst_slices", "summary_picture", "timezone"):
        assert option in Report.model_fields
        assert f"`report.{option}`" in STATEMENT


@pytest.mark.parametrize("row", table("### 5.2"), ids=lambda row: row[0])
def test_statuses_of_destinations(row: list[str]) -> None:
    """Each answer of a destination leads where the statement says."""
    status, does = row
    expected = Receipt if "SENT" in does else Permanent if "DEAD" in does else Retriable
    number = int(status, 16) if re.match("0x", status) else 0x0110

    assert isinstance(meaning_of(number), expected)
    if number not in (0x0000, 0x0111, 0x0122, 0x0124, 0x0110):
        assert isinstance(meaning_of(number + 1), expected)
    assert isinstance(meaning_of(None), Retriable)
