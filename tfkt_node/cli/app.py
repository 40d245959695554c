"""The command `tfkt-node`: its subcommands, its global options and its exit codes.

Exit codes: 0 done; 1 something failed that the output names; 2 wrong usage or settings.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfkt_node.cli import (
    audit,
    bench,
    check,
    convert,
    db,
    deliveries,
    demo,
    evaluate,
    score,
    series,
    serve,
    train,
)
from tfkt_node.cli.output import complain
from tfkt_node.records import Misconfigured, NodeError, Permanent

DONE, FAILED, MISUSED = 0, 1, 2

app = typer.Typer(
    name="tfkt-node",
    help="A DICOM node that gates the image quality of CT.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help, as any pager and any screen reader likes it
    # A fault of our own shows as a plain traceback; locals could hold patient data.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from tfkt_node import __version__

        typer.echo(f"tfkt-node {__version__}")
        raise typer.Exit


@app.callback()
def tfkt_node(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="TFKT_NODE_CONFIG",
            exists=True,
            dir_okay=False,
            help="Settings file. Without it: ./tfkt_node.toml if there is one, else "
            "/etc/tfkt-node/tfkt_node.toml if there is one, else the defaults.",
        ),
    ] = None,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Receive CT, score every slice as a radiologist would, report, and flag what is too poor."""
    context.obj = config


app.command()(serve.serve)
app.command()(score.score)
app.command()(demo.demo)
app.command()(check.check)
app.add_typer(series.app, name="series")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(audit.app, name="audit")
app.add_typer(db.app, name="db")
app.add_typer(bench.app, name="bench")
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(convert.convert)


def _say(error: NodeError) -> int:
    if isinstance(error, Misconfigured):
        complain(*error.problems)
        return MISUSED
    complain(f"{error}; {error.cure}" if isinstance(error, Permanent) else str(error))
    return FAILED


def run(arguments: list[str] | None = None) -> int:
    """Run one command; None: the arguments of this process. Returns the exit code."""
    try:
        app(arguments, prog_name="tfkt-node")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except NodeError as error:
        return _say(error)
    except BrokenPipeError:
        # The reader, such as `head`, has gone; Python would complain again while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        complain(f"{error.filename or 'the system'}: {error.strerror}")
        return FAILED
    return DONE
