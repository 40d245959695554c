"""`tfkt-node audit`: the proof that the audit was not changed."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from tfkt_node.cli.options import Json, open_store
from tfkt_node.cli.output import complain, counted, print_json

app = typer.Typer(
    help="Prove that the audit is whole.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def audit() -> None:
    """Prove that the audit is whole."""


@app.command()
def verify(
    context: typer.Context,
    anchor: Annotated[
        str,
        typer.Option(
            metavar="NUMBER:HASH",
            help="A head of the chain that you noted outside, as this command printed it.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Check the hash of each event, and that verdicts, objects and deliveries are as events tell.

    Compared are verdict, score, flag, reason, criteria and bundle, the digests of made objects, and
    the ends of deliveries. Not proven is the rest, such as the scores of single slices.

    Note the head that is printed somewhere outside the database: given back as --anchor, it shows
    a chain that was cut off or made anew.
    """
    noted = _parse_anchor(anchor)
    with open_store(context) as store:
        from tfkt_node.audit import proof

        report = proof.verify(store, noted)
    if as_json:
        print_json({**asdict(report), "holds": report.holds})
    elif report.holds:
        typer.echo(f"the audit holds: {counted(report.events, 'event')}, and the rows they tell of")
        typer.echo(f"head {report.events}:{report.head}")
    if not report.holds:
        complain(f"the audit does not hold ({report.fault}): {report.message}")
        raise typer.Exit(1)


def _parse_anchor(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    if not re.fullmatch(r"[1-9][0-9]*:[0-9a-f]{64}", text.lower()):
        raise typer.BadParameter(
            "expected NUMBER:HASH with 64 hex digits, as `audit verify` prints it",
            param_hint="--anchor",
        )
    number, head = text.lower().split(":")
    return int(number), head
