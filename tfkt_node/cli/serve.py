"""`tfkt-node serve`: run the node until it is told to stop."""

from __future__ import annotations

import typer

from tfkt_node.cli.options import keep_files_private, load_settings


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
    Node(settings).run_until_signal()
