"""`tfkt-node db`: the schema of the audit store."""

from __future__ import annotations

import typer

from tfkt_node.cli.options import keep_files_private, load_settings

app = typer.Typer(
    help="Look after the audit database.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def db() -> None:
    """Look after the audit database."""


@app.command()
def upgrade(context: typer.Context) -> None:
    """Make the audit database, or bring it to the newest schema. Nothing else changes it."""
    settings = load_settings(context)
    keep_files_private()
    from tfkt_node.audit import store

    if not settings.storage.database:
        settings.storage.spool.mkdir(parents=True, exist_ok=True)
    url = settings.storage.database_url
    before, after = store.upgrade(url)
    where = f"the audit database {store.without_password(url)}"
    if before == after:
        typer.echo(f"{where} has the newest schema already ({after})")
    else:
        typer.echo(f"{where} went from schema {before or 'none'} to {after}")
