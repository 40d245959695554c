"""`tfkt-node deliveries`: what is on its way to the destinations."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from tfkt_node.cli.options import Json, load_settings, login_name, open_store
from tfkt_node.cli.output import NOTHING, counted, instant, jsonable, print_json, print_table
from tfkt_node.records import DeliveryRow, DeliveryState, ObjectState

app = typer.Typer(
    help="Look at deliveries, and try the failed ones again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def deliveries() -> None:
    """Look at deliveries, and try the failed ones again."""


@app.command("list")
def list_deliveries(
    context: typer.Context,
    state: Annotated[
        DeliveryState | None, typer.Option(case_sensitive=False, help="Only in this state.")
    ] = None,
    destination: Annotated[
        str, typer.Option(metavar="NAME", help="Only to this peer, by its name in the settings.")
    ] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most deliveries to list.")] = 50,
    as_json: Json = False,
) -> None:
    """List deliveries and objects that could not be made.

    What has not arrived comes first, in the order in which it was owed; then what is SENT, the
    newest first.
    """
    with open_store(context) as store:
        found = store.delivery_rows(state=state, destination=destination or None, limit=limit + 1)
    rows = found[:limit]
    if as_json:
        print_json({"deliveries": [jsonable(asdict(row)) for row in rows]})
        return
    if not rows:
        typer.echo("no deliveries")
        return
    columns = (">id", "to", "object", "state", ">attempts", "next attempt (UTC)", "error or remark")
    print_table("", columns, [_line(row) for row in rows])
    if len(found) > limit:
        typer.echo("… and more; see --limit")


def _line(row: DeliveryRow) -> tuple[str, ...]:
    """Return the cells of a row: where it waits for an object, the object's state and error."""
    state, due_at, said = str(row.state), row.next_attempt_at, row.last_error
    lacks_object = row.object_state is ObjectState.FAILED or (
        row.object_state is ObjectState.OWED and row.object_error
    )
    if row.state is DeliveryState.SENT:
        said = f"0x{row.status:04X}: {row.comment}" if row.comment else ""
    elif lacks_object:
        state, due_at = str(row.object_state), row.object_due_at
        said = f"no object: {row.object_error}"
    elif row.waits_for is not None:
        due_at = None
        said = f"waits for delivery {row.waits_for}, of an earlier revision of the series"
    return (
        NOTHING if row.delivery_id is None else str(row.delivery_id),
        row.destination or NOTHING,
        str(row.kind),
        state,
        str(row.attempts),
        instant(due_at),
        said,
    )


@app.command()
def retry(
    context: typer.Context,
    *,
    delivery_id: Annotated[
        int | None, typer.Argument(metavar="[ID]", help="Number from `deliveries list`.")
    ] = None,
    destination: Annotated[str, typer.Option(metavar="NAME", help="All to this peer.")] = "",
    everything: Annotated[
        bool,
        typer.Option("--all", help="All, and objects that could not be made."),
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Why; it is kept in the audit. Always needed.", show_default=False)
    ] = "",
    actor: Annotated[
        str, typer.Option(help="Who; it is kept in the audit. Default: your login name.")
    ] = "",
) -> None:
    """Try deliveries again that were given up (DEAD), and at once those that wait.

    Name one ID, one destination, or --all.
    """
    if sum((delivery_id is not None, bool(destination), everything)) != 1:
        raise typer.BadParameter("name exactly one of: an ID, --destination NAME, --all")
    actor = actor.strip() or login_name()
    if not actor:
        raise typer.BadParameter("this user has no login name; say who", param_hint="--actor")
    if not reason.strip():
        raise typer.BadParameter("a reason is kept in the audit; say why", param_hint="--reason")
    with open_store(context) as store:
        if destination and not store.delivery_rows(destination=destination, limit=1):
            _refuse_unknown(context, destination)
        if delivery_id is not None and not store.delivery_rows(delivery_id=delivery_id):
            raise typer.BadParameter(f"there is no delivery {delivery_id}", param_hint="ID")
        which: int | str | None = delivery_id if delivery_id is not None else destination or None
        count = store.retry_deliveries(which, actor, reason.strip(), datetime.now(UTC))
    if count:
        typer.echo(f"{counted(count, 'delivery or object', 'deliveries and objects')} to try again")
    else:
        typer.echo("nothing to try again: none of these was given up, or waits")


def _refuse_unknown(context: typer.Context, destination: str) -> None:
    names = [peer.name for peer in load_settings(context).destinations]
    if destination not in names:
        known = ", ".join(names) or "none has deliver = true"
        raise typer.BadParameter(
            f"{destination!r} is no destination in the settings (known: {known}), and has no "
            "deliveries",
            param_hint="--destination",
        )
