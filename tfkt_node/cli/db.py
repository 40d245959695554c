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
    before, after = store.upgrade(settings.storage.database_url)
    if before == after:
        typer.echo(f"the audit database has the newest schema already ({after})")
    else:
        typer.echo(f"the audit database went from schema {before or 'none'} to {after}")
