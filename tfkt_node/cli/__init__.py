"""The command line: one file per command group.

Guarantees that a user's mistake ends in one clear sentence and an exit code, never in a traceback,
and that nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run `tfkt-node` with the arguments of this process, and exit with its code."""
    from tfkt_node.cli.app import run

    sys.exit(run())
