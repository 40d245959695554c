"""`tfkt-node serve`: run the node until it is told to stop."""

from __future__ import annotations

import errno

import typer

from tfkt_node.cli.options import keep_files_private, load_settings
from tfkt_node.records import Permanent

NO_LISTENING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


def serve(context: typer.Context) -> None:
    """Run the node until it is told to stop.

    It receives, scores, reports and delivers until SIGTERM or Ctrl-C. The database must have the
    newest schema: run `tfkt-node db upgrade` first.
    """
    settings = load_settings(context)
    keep_files_private()
    from tfkt_node import logs
    from tfkt_node.node import Node

    logs.configure(settings.logging)
    node = Node(settings)
    try:
        node.run_until_signal()
    except OSError as error:
        if error.errno not in NO_LISTENING:
            raise
        place = f"{settings.reception.host}:{settings.reception.port}"
        raise Permanent(
            f"cannot listen on {place} ({error.strerror})", "see `tfkt-node check`"
        ) from error
