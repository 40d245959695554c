"""`tfkt-node evaluate`: print the figures of a bundle's card, worked out anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tfkt_node.cli.options import Json
from tfkt_node.cli.output import number, print_json, print_table
from tfkt_node.cli.train import DataFolder, need_training, print_figures, track

if TYPE_CHECKING:
    from tfkt_node.training.evaluation import RealImages


def evaluate(
    data: DataFolder,
    bundle: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="Name of a shipped bundle, or its folder.")
    ] = "tfkt-v2-lite",
    as_json: Json = False,
) -> None:
    """Test a bundle on the patients its recipe held out, on scored images and real dose pairs.

    Simulates every version anew: minutes. Needs the extra `train`.
    """
    need_training()
    from tfkt_node.iqa.bundle import load
    from tfkt_node.training import course

    shipped = load(bundle)
    found = course.evaluate(shipped, data, track)
    figures = found.figures()
    if as_json:
        document = {
            "schema": 1,
            "bundle": {"name": shipped.name, "version": shipped.version, "digest": shipped.digest},
            "figures": {figure.name: figure.value for figure in figures},
        }
        print_json(document)
        return
    print_figures(figures)
    _print_real(found.real)


def _print_real(real: RealImages) -> None:
    print_table(
        "Images that readers scored (two constants of the label were set on them)",
        ("image", ">readers", ">score", ">noise formula", ">label", ">label, left out"),
        [
            (name, *map(number, (*scores, label.label, label.left_out)))
            for (name, *scores), label in zip(real.anchors, real.labels, strict=True)
        ],
    )
    print_table(
        "Real pairs",
        ("slice", ">full dose", ">quarter dose"),
        [(name, *map(number, scores)) for name, *scores in real.pairs],
    )
