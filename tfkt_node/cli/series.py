"""`tfkt-node series`: what was received and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfkt_node.cli.options import Json, load_settings, open_store
from tfkt_node.cli.output import (
    NOTHING,
    counted,
    duration,
    instant,
    jsonable,
    number,
    print_json,
    print_table,
)
from tfkt_node.records import AssociationEnd, Confidence, RevisionState, Verdict

if TYPE_CHECKING:
    from tfkt_node.records import SeriesRow

app = typer.Typer(
    help="Look at series and their verdicts.", no_args_is_help=True, rich_markup_mode=None
)

SHOWN = {
    "revisions": (
        "revision", "id", "state", "opened_at", "last_arrival_at", "closed_at", "received",
        "expected", "broken_associations", "attempts",
    ),
    "instances": ("revision", "state", "reason", "count"),
    "verdicts": (
        "revision", "decided_at", "outcome", "reason", "verdict", "flagged", "confidence",
        "confidence_reasons", "score", "low", "high", "no_report_because",
    ),
    "stacks": (
        "revision", "stack", "orientation", "acquisition", "kernel", "in_scope", "out_of_scope",
        "score", "p10", "below_threshold", "gaps", "repeated",
    ),
    "objects": ("revision", "kind", "state", "built_at", "error"),
    "deliveries": (
        "revision", "id", "destination", "state", "attempts", "next_attempt_at", "last_error",
        "comment",
    ),
    "events": ("seq", "at", "kind", "subject", "actor", "about"),
}  # fmt: skip
"""Tables of `series show` and their columns for people; --json shows all."""

FROM_HEADERS = frozenset({
    "study_date", "accession_number", "series_description", "study_uid", "series_uid", "kernel",
    "acquisition",
})  # fmt: skip
"""Texts that are as long as a sender likes."""

LONGEST_TEXT = 64
"""Characters of such a text in a table: no UID is longer. --json has the whole."""


@app.callback()
def series() -> None:
    """Look at series and their verdicts."""


def _study_date(text: str) -> str:
    digits = text.replace("-", "")
    if text and not (len(digits) == 8 and digits.isdecimal()):
        raise typer.BadParameter("expected a study date such as 2026-11-24")
    return digits


# --------------------------------------------------------------------------- list


@app.command("list")
def list_series(
    context: typer.Context,
    *,
    date: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", callback=_study_date, help="Study date.")
    ] = "",
    accession: Annotated[str, typer.Option(metavar="NUMBER", help="Accession number.")] = "",
    verdict: Annotated[
        Verdict | None, typer.Option(case_sensitive=False, help="Verdict of the newest revision.")
    ] = None,
    calling_ae: Annotated[
        str, typer.Option(metavar="TITLE", help="Calling AE title that sent the series.")
    ] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most series to list.")] = 50,
    as_json: Json = False,
) -> None:
    """List series, the last to arrive first, with where each stands."""
    quiet_s = load_settings(context).series.quiet_s
    with open_store(context) as store:
        found = store.series_rows(
            study_date=date or None,
            accession_number=accession or None,
            verdict=verdict,
            calling_ae=calling_ae or None,
            limit=limit + 1,
        )
        set_aside = store.set_aside_counts()
    rows = found[:limit]
    if as_json:
        print_json({"series": [_as_json(row) for row in rows], "set_aside": set_aside})
        return
    if rows:
        _print_rows(rows, quiet_s)
    else:
        typer.echo("no series")
    if len(found) > limit:
        typer.echo("… and more; see --limit")
    if set_aside:
        reasons = ", ".join(f"{count} {reason}" for reason, count in set_aside.items())
        total = counted(sum(set_aside.values()), "instance")
        typer.echo(f"set aside, in no series: {total} ({reasons})")


def _print_rows(rows: Sequence[SeriesRow], quiet_s: float) -> None:
    now = datetime.now(UTC)
    print_table(
        "",
        (">id", "study date", "accession", "description", "from", ">score", "verdict", "state"),
        [
            (
                str(row.series_id),
                _short(row.study_date) or NOTHING,
                _short(row.accession_number) or NOTHING,
                _short(row.series_description) or NOTHING,
                row.calling_ae,
                number(row.score),
                _verdict(row),
                state_of(row, now, quiet_s),
            )
            for row in rows
        ],
    )


def _verdict(row: SeriesRow) -> str:
    flagged = ", flagged" if row.flagged else ""
    unsure = ", low confidence" if row.confidence is Confidence.LOW_CONFIDENCE else ""
    return f"{row.verdict or NOTHING}{flagged}{unsure}"


def state_of(row: SeriesRow, now: datetime, quiet_s: float) -> str:
    """Say where a series stands: `open, 64 instances, quiet 12 of 30 s`."""
    state = f"revision {row.revision} " if row.revision > 1 else ""
    state += row.state.lower().replace("_", " ")
    parts = [f"{state} ({row.reason})" if row.reason else state, counted(row.instances, "instance")]
    seconds = _seconds_to_verdict(row)
    if row.state is RevisionState.OPEN:
        quiet = max(0.0, (now - row.quiet_since).total_seconds())
        parts.append(f"quiet {min(quiet, quiet_s):.0f} of {quiet_s:.0f} s")
    elif seconds is not None:
        parts.append(f"{duration(seconds)} to verdict")
    return ", ".join(parts)


def _seconds_to_verdict(row: SeriesRow) -> float | None:
    if row.decided_at is None:
        return None
    return (row.decided_at - row.last_arrival_at).total_seconds()


def _as_json(row: SeriesRow) -> dict[str, Any]:
    fields: dict[str, Any] = jsonable(asdict(row))
    return {**fields, "time_to_verdict_s": _seconds_to_verdict(row)}


# --------------------------------------------------------------------------- show


@app.command()
def show(
    context: typer.Context,
    series: Annotated[
        str, typer.Argument(metavar="ID", help="Number from `series list`, or Series UID.")
    ],
    as_json: Json = False,
) -> None:
    """Show one series: its revisions, verdicts, reports and deliveries."""
    key: int | str = int(series) if series.isdecimal() and len(series) < 10 else series
    with open_store(context) as store:
        detail = dict(store.series_detail(key))
        conflicts = dict(store.conflicts_of(detail["id"]))
    told = [*detail["events"], *conflicts.pop("instance_events")]
    detail |= {**conflicts, "events": sorted(told, key=itemgetter("seq"))}
    if as_json:
        print_json(jsonable(detail))
        return
    title = (
        f"Series {detail['id']}: {_short(detail['series_description']) or 'without description'}"
    )
    head = ["study_date", "accession_number", "calling_ae", "study_uid", "series_uid"]
    head += [key for key in conflicts if detail[key]]
    print_table(title, (), [(_words(key), _cell(detail, key)) for key in head])
    detail["revisions"] = [_with_evidence(row) for row in detail["revisions"]]
    detail["events"] = _folded(detail["events"])
    for name, columns in SHOWN.items():
        if detail[name]:
            typer.echo()
            told = [
                key for key in columns if any(_cell(row, key) != NOTHING for row in detail[name])
            ]
            rows = [[_cell(row, key) for key in told] for row in detail[name]]
            words = [_words(key) for key in told]
            if len(rows) == 1:  # one row reads better downwards
                print_table(name.capitalize(), (), list(zip(words, rows[0], strict=True)))
            else:
                print_table(name.capitalize(), words, rows)


def _with_evidence(revision: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what speaks for a revision being whole, and against it; nothing while it is open."""
    evidence = revision["evidence"] or {}
    hows = Counter(association["how"] for association in evidence.get("associations", ()))
    broken = (AssociationEnd.ABORTED, AssociationEnd.LOST)
    return {
        **revision,
        "received": evidence.get("instances"),
        "expected": evidence.get("expected_count"),
        "broken_associations": [f"{hows[how]} {how}" for how in broken if hows[how]],
    }


def _folded(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tell in one row what happened to instances one after the other: there may be thousands."""

    def run_of(event: Mapping[str, Any]) -> tuple[str, object]:
        of_instance = event["subject"].startswith("instance:")
        return event["kind"], "instance" if of_instance else event["seq"]

    rows = []
    for _, run in groupby(events, run_of):
        first, *rest = run
        subject = f"{first['subject']} and {len(rest)} more" if rest else first["subject"]
        rows.append({**first, "subject": subject, "about": _about(first)})
    return rows


def _about(event: Mapping[str, Any]) -> str:
    detail = event["detail"]
    about = str(detail.get("what") or detail.get("reason") or "")
    if event["kind"] == "SERIES_CONFLICT":
        about += f": series {', '.join(map(str, detail['others']))}"
    return about


def _words(key: str) -> str:
    words = key.removesuffix("_at").replace("_", " ")
    return f"{words} (UTC)" if key == "at" or key.endswith("_at") else words


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if value is None or value in ("", []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, float):
        return number(value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return _short(text) if key in FROM_HEADERS else text
