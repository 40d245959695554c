"""`tfkt-node convert`: make a bundle from a checkpoint of TFKT V2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkt_node.cli.train import need_training


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            exists=True,
            dir_okay=False,
            help="State dict as the authors' code saves it (torch.save). No code in it is run.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", file_okay=False, help="Folder that becomes the bundle (2 GB)."),
    ],
) -> None:
    """Make a bundle from a checkpoint of TFKT V2.

    Every name and shape is checked. The bundle claims nothing of its scores: their interval is the
    whole scale. Takes some minutes. Needs the extra `train`.
    """
    need_training()
    from tfkt_node.training.bundles.released_bundle import convert as converted

    made = converted(checkpoint, out)
    typer.echo(f"Bundle {made.name} {made.version} written to {out}")
