"""How commands speak: numbers, words, tables and bars."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tfkt_node.cli.output import (
    counted,
    duration,
    instant,
    interval,
    jsonable,
    number,
    print_json,
    print_table,
    printable,
    progress,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (8.4, "8 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """A duration shows its two largest units."""
    assert text == duration(seconds)


def test_counts_have_a_plural() -> None:
    """One slice, two slices; one series, two series."""
    assert ["0 slices", "1 slice", "2 slices"] == [counted(n, "slice") for n in range(3)]
    assert "2 series" == counted(2, "series", "series")


def test_missing_values_are_a_dash() -> None:
    """What is not there is a dash, never None or nan."""
    assert ["–"] * 3 == [number(None), interval(None), instant(None)]
    assert "2.10 … 3.05" == interval((2.1, 3.049))


def test_text_cannot_drive_a_terminal() -> None:
    """Control characters of a header, and stray bytes of a file name, are replaced."""
    assert "a�[31mb�" == printable("a\x1b[31mb\udcff")


def test_tables_do_not_interpret(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup in a value stays text, and piped tables cut nothing."""
    print_table("Title", ("name", ">value"), [("[red]x[/red]", "1"), ("y" * 120, "20")])

    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "y" * 120 in out


def test_narrow_tables_lose_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a table is wider than the terminal its cells are folded, never cut."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")

    print_table("", ("verdict", "why"), [("NON_DIAGNOSTIC", "word" * 30)])

    out = capsys.readouterr().out
    assert "…" not in out
    assert 30 == out.replace("\n", "").replace(" ", "").replace("NON_DIAGNOSTIC", "").count("word")


def test_bars_show_on_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped, no bar is written anywhere."""
    with progress() as bar:
        assert [1, 2] == list(bar.track([1, 2], description="Reading"))

    assert ("", "") == capsys.readouterr()


def test_json_takes_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A file name that is no UTF-8 is written; a number that is no number is a mistake."""
    print_json({"path": "stray \udcff", "at": jsonable(datetime(2026, 1, 2, tzinfo=UTC))})

    assert '"stray \\udcff"' in capsys.readouterr().out
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"score": float("nan")})
