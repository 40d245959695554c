"""`tfkt-node train`: make a bundle from clean slices."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tfkt_node.cli.output import number, print_table, progress
from tfkt_node.records import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tfkt_node.training.course import Run
    from tfkt_node.training.judging.evaluation import Figure
    from tfkt_node.training.recipe import Recipe

Item = TypeVar("Item")

DataFolder = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Folder that holds ct-clean, anchors, paired-dose and series; natural for opinion "
        "scores, and LDCTIQAG2023_train for readers' scores, where there are some.",
    ),
]


def train(
    *,
    data: DataFolder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Folder that becomes the bundle."),
    ] = None,
    work: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Folder for versions, maps and fits (5 GB). A run that was stopped goes on here.",
        ),
    ] = Path("work-training"),
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="recipe.toml of a bundle to repeat or vary. Without it: the defaults.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes at once, one core each.")] = 2,
    ablation: Annotated[
        bool,
        typer.Option("--ablation", help="Then change one choice at a time and print what it does."),
    ] = False,
    phase_one: Annotated[
        bool,
        typer.Option(
            "--phase-one",
            help="Only let the features learn from opinions on natural images, print how they "
            "agree with people on the test split, and stop: no bundle is written.",
        ),
    ] = False,
) -> None:
    """Simulate lower dose, cross-validate by patient, fit the network, write the bundle.

    Takes about two hours on two cores, and with --ablation another two. Needs the extra `train`.
    """
    if out is None and not phase_one:
        raise Misconfigured("--out is missing: the folder that becomes the bundle")
    need_training()
    from tfkt_node.training import course
    from tfkt_node.training.recipe import Recipe, read

    constants = Recipe() if recipe is None else read(recipe)
    with alone_in(work):
        if out is None or phase_one:
            _print_phase_one(data, work, constants)
            return
        run = course.Run(course.Folders(data, work, out), constants, workers, track)
        trained = course.train(run)
        print_figures(trained.figures)
        typer.echo(f"Bundle {trained.bundle.name} {trained.bundle.version} written to {out}")
        if ablation:
            _print_ablation(run)
            _print_phase_one(data, work, constants)


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Hold a work folder, which is made if needed: two runs would write the same files.

    The system frees it with the process, however that ends. Raises Misconfigured while another
    holds it, and where it cannot be written.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"--work {work}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misconfigured(
                f"--work {work}: another train is running there; wait for its end, or give this "
                "one a folder of its own"
            ) from error
        yield


def _print_ablation(run: Run) -> None:
    from tfkt_node.training.ablation import ablate

    rows = [
        (
            line.name,
            f"{line.srocc:.4f}",
            f"{line.difference:+.4f}",
            f"{line.low:+.4f} to {line.high:+.4f}",
            f"{line.mae:.3f}",
            f"{line.order:.4f}",
            f"{line.smoothed_gain:+.3f}",
        )
        for line in ablate(run)
    ]
    columns = ("network", ">SROCC", ">change", ">95 %", ">MAE of u", ">order", ">smoothed")
    print_table("", columns, rows)


def _print_phase_one(data: Path, work: Path, recipe: Recipe) -> None:
    """Run phase 1, or find it in the work folder, and print what it is worth."""
    from tfkt_node.training.fitting.phase_one import FLOOR, adapted, correlations

    inputs = recipe.network.inputs
    found = correlations(adapted(data, work, inputs, recipe.natural, track))
    # "pooled" is there in any set; its floor is of the one that these subsets make up.
    floors = FLOOR if FLOOR.keys() <= {one.subset for one in found} else {}
    print_table(
        "Opinions on natural images, test split; floor: 66 hand-made features on the shared set",
        ("subset", ">images", ">PLCC", ">SROCC", ">KROCC", ">floor PLCC", ">floor SROCC"),
        [
            (
                one.subset,
                str(one.n),
                *(number(value, 3) for value in (one.plcc, one.srocc, one.krocc)),
                *(number(value, 3) for value in floors.get(one.subset, (None, None))),
            )
            for one in found
        ],
    )


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
