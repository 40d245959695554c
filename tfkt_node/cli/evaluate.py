"""`tfkt-node evaluate`: print the figures of a bundle on real images, worked out anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkt_node.cli.options import Json
from tfkt_node.cli.output import number, print_json, print_table
from tfkt_node.cli.train import need_training, print_figures, track
from tfkt_node.records import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tfkt_node.training.judging.on_real_images import OnRealImages
    from tfkt_node.training.judging.scope_counts import ScopeCount
    from tfkt_node.training.simulation.simulation_check import Compared


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder that holds anchors, paired-dose and series; and LDCTIQAG2023_train, as "
            "the challenge ships it, to be judged by its readers; and zoo and ct-clean, to count "
            "what the scope withholds.",
        ),
    ],
    bundle: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="Name of a shipped bundle, or its folder.")
    ] = "tfkt-v2-lite",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write scores against labels as a PNG."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Test a bundle on scored images, real dose pairs and patients that nothing was fitted to.

    Simulates versions of these patients' slices: a minute or two. The cross-validated figures of a
    card are printed by `train`. Needs the extra `train`.
    """
    need_training()
    from tfkt_node.iqa.bundle import load
    from tfkt_node.iqa.engine import open_engine
    from tfkt_node.training.judging import pictures
    from tfkt_node.training.judging.on_real_images import on_real_images
    from tfkt_node.training.judging.scope_counts import scope_counts
    from tfkt_node.training.simulation import simulation_check

    if plot is not None and not plot.absolute().parent.is_dir():
        raise Misconfigured(f"--plot {plot}: there is no such folder; make it first")
    shipped = load(bundle)
    engine = open_engine(shipped, "openvino")
    found = on_real_images(shipped, engine, data, track)
    figures = found.figures()
    if plot is not None:
        rows, u = found.unseen
        anchors = [(one.readers, one.score) for one in found.anchors]
        try:
            pictures.scores(plot, rows, u, anchors, seed=0)
        except OSError as error:
            raise Misconfigured(f"--plot {plot}: cannot be written ({error.strerror})") from error
    if as_json:
        document = {
            "schema": 1,
            "bundle": {"name": shipped.name, "version": shipped.version, "digest": shipped.digest},
            "figures": {figure.name: figure.value for figure in figures},
        }
        print_json(document)
        return
    print_figures(figures)
    _print_images(found)
    _print_simulation(simulation_check.table(data))
    if (data / "zoo").is_dir():
        _print_scope(scope_counts(data, shipped, engine, track))


def _print_images(found: OnRealImages) -> None:
    print_table(
        "Images that readers scored (two constants of the label, and the shift, were set on them)",
        ("image", ">readers", ">score", ">noise formula", ">label", ">label, left out"),
        [
            (
                one.name,
                *map(number, (one.readers, one.score, one.noise_formula)),
                *map(number, (label.label, label.left_out)),
            )
            for one, label in zip(found.anchors, found.labels, strict=True)
        ],
    )
    print_table(
        "Real pairs of doses",
        ("slice", ">full dose", ">quarter dose"),
        [(pair.name, number(pair.full), number(pair.quarter)) for pair in found.pairs],
    )


def _print_simulation(pairs: Sequence[Compared]) -> None:
    print_table(
        "A quarter of the dose, simulated beside the real one: noise added in HU",
        ("slice", ">real", ">simulated", ">bias", ">spectrum apart", ">maps of SD alike"),
        [
            (
                pair.pair,
                *(number(value) for value in (pair.real, pair.simulated, pair.bias)),
                *(number(value) for value in (pair.spectrum, pair.maps)),
            )
            for pair in pairs
        ],
    )


def _print_scope(counts: Sequence[ScopeCount]) -> None:
    print_table(
        "Slices that the scope withholds",
        ("group", "belongs", ">slices", ">withheld", "reasons"),
        [
            (
                count.group,
                "yes" if count.belongs else "no",
                str(count.slices),
                str(count.withheld),
                ", ".join(f"{reason} {times}" for reason, times in count.reasons.items()),
            )
            for count in counts
        ],
    )
