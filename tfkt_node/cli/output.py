"""How commands speak: tables for people, JSON for programs, complaints on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from tfkt_node.records import Confidence, Reason

NOTHING = "–"
"""What a table shows where there is no value."""


def console() -> Console:
    """Return standard output for tables; piped, it is wide enough that no cell is cut."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    return Console(width=width, highlight=False, soft_wrap=False)


def progress() -> Progress:
    """Progress bar on standard error, and only where that is a terminal."""
    from rich import progress as bars
    from rich.console import Console

    screen = Console(stderr=True)
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )


def complain(*sentences: str) -> None:
    """Write one line per sentence to standard error."""
    for sentence in sentences:
        typer.echo(f"tfkt-node: {sentence}", err=True)


def print_json(document: object) -> None:
    """Write a document to standard output. Raises ValueError for NaN or infinity.

    ASCII only: file names may hold bytes that are no valid UTF-8.
    """
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def jsonable(value: Any) -> Any:
    """Turn datetimes into ISO 8601 and tuples into lists, all the way down."""
    match value:
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): jsonable(one) for key, one in value.items()}
        case list() | tuple():
            return [jsonable(one) for one in value]
        case _:
            return value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table. A column whose name begins with `>` is aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # Text, not markup: names come from headers, and "[red]" in one must stay as it is.
    table = Table(
        title=Text(printable(title), style="bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD if columns else None,
        show_header=bool(columns),
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        # Folded, never cut: half a verdict is worse than a tall line.
        table.add_column(
            name.removeprefix(">"),
            justify="right" if name.startswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console().print(table)


def printable(text: str) -> str:
    """Replace control characters and stray bytes, so that no header can drive a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def number(value: float | None, digits: int = 2) -> str:
    """Write a score, or a dash."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def interval(bounds: tuple[float, float] | None) -> str:
    """`2.10 … 3.05`, or a dash."""
    return NOTHING if bounds is None else f"{bounds[0]:.2f} … {bounds[1]:.2f}"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 slice`, `2 slices`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def confidence(value: Confidence | None, reasons: Sequence[Reason]) -> str:
    """`CONFIDENT`, or `LOW_CONFIDENCE(AGE_UNKNOWN)`, or a dash."""
    if value is None:
        return NOTHING
    return f"{value}({', '.join(reasons)})" if reasons else str(value)


def instant(at: datetime | None) -> str:
    """UTC to the second, or a dash."""
    return NOTHING if at is None else at.strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    left = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for index, (name, size) in enumerate(units):
        if left >= size:
            text = f"{left // size} {name}"
            rest = left % size
            if rest and index + 1 < len(units):
                finer, finer_size = units[index + 1]
                text += f" {rest // finer_size} {finer}" if rest >= finer_size else ""
            return text
    return "0 s"
