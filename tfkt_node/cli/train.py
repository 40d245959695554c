"""`tfkt-node train`: make a bundle from clean slices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tfkt_node.cli.output import print_table, progress
from tfkt_node.records import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tfkt_node.training.evaluation import Figure

Item = TypeVar("Item")

DataFolder = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Folder that holds ct-clean, anchors and paired-dose.",
    ),
]


def train(
    data: DataFolder,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", file_okay=False, help="Folder that becomes the bundle."),
    ],
    work: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Folder for feature maps (1.3 GB), used again by the next run.",
        ),
    ] = Path("work-training"),
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="recipe.toml of a bundle to repeat or vary. Without it: the shipped bundle's.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that simulate, one core each.")
    ] = 2,
) -> None:
    """Simulate lower dose, fit the network, test it on held-out patients, write the bundle.

    Takes about an hour on two cores. Needs the extra `train`.
    """
    need_training()
    from tfkt_node.training import course
    from tfkt_node.training.recipe import Recipe, read

    constants = Recipe() if recipe is None else read(recipe)
    folders = course.Folders(data=data, work=work, out=out)
    trained = course.train(folders, constants, workers, track)
    print_figures(trained.figures)
    typer.echo(f"Bundle {trained.bundle.name} {trained.bundle.version} written to {out}")


def need_training() -> None:
    """Raise Misconfigured unless the extra `train` is installed."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "timm", "skimage") if find_spec(name) is None]
    if missing:
        raise Misconfigured(
            f"the Python package {missing[0]} is not installed: pip install 'tfkt-node[train]'"
        )


def track(items: Iterable[Item], total: int, description: str) -> Iterable[Item]:
    """Show a bar while items pass, on a terminal only."""
    with progress() as bar:
        yield from bar.track(items, total=total, description=description)


def print_figures(figures: Sequence[Figure]) -> None:
    """Print the figures of a card."""
    rows = [(figure.name, f"{figure.value:.4f}") for figure in figures]
    print_table("", ("figure", ">value"), rows)
