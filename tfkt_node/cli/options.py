"""What several commands take: the settings, the audit store, the actor of an operator action."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tfkt_node.audit.store import Store
    from tfkt_node.settings import Settings

PLACES = (Path("tfkt_node.toml"), Path("/etc/tfkt-node/tfkt_node.toml"))
"""Where the settings file is looked for when none is named."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def settings_file(context: typer.Context) -> Path | None:
    """Return the settings file in force; None: defaults and environment only."""
    named: Path | None = context.obj
    return named or next((place for place in PLACES if place.is_file()), None)


def load_settings(context: typer.Context) -> Settings:
    """Read the settings in force. Raises Misconfigured."""
    from tfkt_node.settings import load

    return load(settings_file(context))


@contextmanager
def open_store(context: typer.Context) -> Iterator[Store]:
    """Open the audit store in force, its schema checked. Raises Misconfigured."""
    settings = load_settings(context)
    refuse_absent_database(settings)
    from tfkt_node.audit.store import Store

    store = Store(settings.storage.database_url)
    try:
        store.check_schema()
        yield store
    finally:
        store.close()


def refuse_absent_database(settings: Settings) -> None:
    """Raise Misconfigured where SQLite would make an empty database by being asked."""
    from tfkt_node.records import Misconfigured

    url = settings.storage.database_url
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).is_file():
        raise Misconfigured(
            f"there is no audit database at {path}: name the settings file of the node with "
            "--config, or make the database with `tfkt-node db upgrade`"
        )


def keep_files_private() -> None:
    """Let only this user read what the process writes: spool and database hold patients' data."""
    os.umask(0o077)


def login_name() -> str:
    """Name of the user who runs the command, the default actor."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name; Python < 3.13: KeyError
        return ""
