"""Each status of a C-STORE has one consequence."""

from __future__ import annotations

import pytest

from tfkt_node.delivery.statuses import Receipt, meaning_of
from tfkt_node.records import Permanent, Retriable

TABLE = [
    (0x0000, Receipt),
    (0xB000, Receipt),
    (0xB006, Receipt),
    (0xB007, Receipt),
    (0xBFFF, Receipt),
    (0x0111, Receipt),
    (None, Retriable),
    (0xA700, Retriable),
    (0xA701, Retriable),
    (0xA7FF, Retriable),
    (0x0110, Retriable),
    (0x0210, Retriable),
    (0xFF00, Retriable),
    (0xA900, Permanent),
    (0xA9FF, Permanent),
    (0xC000, Permanent),
    (0xC123, Permanent),
    (0xCFFF, Permanent),
    (0x0122, Permanent),
    (0x0124, Permanent),
]


@pytest.mark.parametrize(("status", "kind"), TABLE)
def test_status_has_its_consequence(status: int | None, kind: type) -> None:
    """PS3.4 B.2.3: stored, later or never; what nobody defined is tried again."""
    assert isinstance(meaning_of(status), kind)


@pytest.mark.parametrize("status", [s for s, kind in TABLE if kind is Permanent])
def test_refusal_names_a_cure(status: int) -> None:
    """A dead delivery says the status, what it means and what to do."""
    answer = meaning_of(status)

    assert isinstance(answer, Permanent)
    assert f"0x{status:04X}" in str(answer)
    assert "deliveries retry" in answer.cure


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA7FF])
def test_full_destination_is_named_as_such(status: int) -> None:
    """The whole range 0xA7xx means out of resources, not 0xA700 alone."""
    assert f"out of resources (0x{status:04X})" in str(meaning_of(status))


def test_warning_is_success_with_a_note() -> None:
    """The peer's remark is kept; without one the note says what a warning means."""
    assert Receipt(0xB000, "coerced") == meaning_of(0xB000, "coerced")
    answer = meaning_of(0xB007)
    assert isinstance(answer, Receipt)
    assert "warning" in answer.comment


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000, 0x0110, 0x0124])
def test_comment_of_the_peer_stays_out_of_errors(status: int) -> None:
    """P10: a peer's comment may quote the patient; errors are printed and logged."""
    assert "Doe^John" not in str(meaning_of(status, "Doe^John"))
