"""`tfkt-node bench`: how fast this machine is. Figures to read, never a test to pass."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from tfkt_node.cli.options import Json
from tfkt_node.cli.output import number, print_json, print_table

if TYPE_CHECKING:
    from tfkt_node.cli.bench_model import Row
    from tfkt_node.cli.bench_reception import Measured

app = typer.Typer(
    help="Measure how fast this machine is.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def bench() -> None:
    """Measure how fast this machine is."""


Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="Folder of CT series; its largest is taken. Without it: a simulated one.",
    ),
]


@app.command()
def model(
    bundle: Annotated[
        str, typer.Option(metavar="NAME|DIR", help="Name of a shipped bundle, or its folder.")
    ] = "tfkt-v2-lite",
    source: Input = None,
    as_json: Json = False,
) -> None:
    """Measure slices a second: a bundle by engine and precision, the released TFKT V2, all steps.

    Minutes. The rows of torch and of the released network need the extra `train`.
    """
    from tfkt_node.cli import bench_model
    from tfkt_node.iqa.bundle import load

    shipped = load(bundle)
    with tempfile.TemporaryDirectory(prefix="tfkt-node-") as scratch:
        rows = list(bench_model.measure(shipped, source, Path(scratch)))
    machine = {"processor": bench_model.processor(), "cores": bench_model.cores()}
    if as_json:
        named = {"name": shipped.name, "version": shipped.version, "digest": shipped.digest}
        print_json({"schema": 1, "bundle": named, **machine, "rows": [asdict(row) for row in rows]})
        return
    print_table(
        "{} {} on {cores} cores of {processor}".format(shipped.name, shipped.version, **machine),
        ("", ">slices/s", ">ms a slice", ">times released", "remark"),
        _cells(rows),
    )


def _cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    released = next((row.per_second for row in rows if row.is_reference), None)
    for row in rows:
        rate = row.per_second
        ms = None if rate is None else 1000 / rate
        ratio = None if rate is None or released is None else rate / released
        yield row.what, number(rate), number(ms, 1), number(ratio, 1), row.remark


@app.command()
def reception(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median is printed.")] = 5,
    instances: Annotated[
        int, typer.Option(min=8, help="Instances a round and number of senders, 0.5 MB each.")
    ] = 400,
    folder: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Where to write for the time being: on the disk that the spool will be on.",
        ),
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Measure instances a second from one and four senders: this node, Orthanc, DCMTK's storescp.

    Two minutes and 1.5 MB an instance. Needs DCMTK's storescu; what else is not installed is left
    out.
    """
    from tfkt_node.cli import bench_model, bench_reception

    with tempfile.TemporaryDirectory(prefix="tfkt-node-", dir=folder) as scratch:
        rows = bench_reception.measure(Path(scratch).absolute(), rounds, instances, bench_model.say)
    machine = {"processor": bench_model.processor(), "cores": bench_model.cores()}
    if as_json:
        run = {"rounds": rounds, "instances": instances}
        print_json({"schema": 1, **machine, **run, "rows": [asdict(row) for row in rows]})
        return
    print_table(
        "Median of {} rounds of {} instances, {cores} cores of {processor}".format(
            rounds, instances, **machine
        ),
        ("instances/s", ">1 sender", ">4 senders", ">times Orthanc: 1", ">4", "remark"),
        _reception_cells(rows),
    )
    ours = rows[0]
    print_table(
        "tfkt-node: ms an instance of one association",
        (">senders", *(f">{part}" for part in bench_reception.PARTS)),
        (
            (str(senders), *(number(median(values), 1) for values in parts.values()))
            for senders, parts in ours.parts_ms.items()
        ),
    )
    typer.echo(f"The last row is written {median(ours.lag_s):.1f} s after the last answer.")


@app.command()
def decoding(source: Input = None, as_json: Json = False) -> None:
    """Measure slices a second from a file to Hounsfield units on one core, by transfer syntax.

    The series is compressed anew in each; what comes back is compared with what went in.
    """
    from tfkt_node.cli import bench_decoding, bench_model

    with tempfile.TemporaryDirectory(prefix="tfkt-node-") as scratch:
        rows = list(bench_decoding.measure(source, Path(scratch)))
    machine = {"processor": bench_model.processor()}
    if as_json:
        print_json({"schema": 1, **machine, "rows": [asdict(row) for row in rows]})
        return
    print_table(
        "One core of {processor}".format(**machine),
        ("transfer syntax", ">slices/s", ">ms a slice", ">KB of its file", "HU came back"),
        (
            (
                row.syntax,
                number(row.per_second, 0),
                number(1000 / row.per_second, 1),
                number(row.kb, 0),
                "all, exactly" if row.is_exact else "WRONG",
            )
            for row in rows
        ),
    )


@app.command()
def report(
    slices: Annotated[int, typer.Option(min=1, help="Slices of the series.")] = 600,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median is printed.")] = 5,
    as_json: Json = False,
) -> None:
    """Measure how long each object of a flagged series takes to build, and how large it is."""
    from tfkt_node.cli import bench_model, bench_report

    rows = list(bench_report.measure(slices, rounds))
    machine = {"processor": bench_model.processor(), "cores": bench_model.cores()}
    if as_json:
        run = {"slices": slices, "rounds": rounds}
        print_json({"schema": 1, **machine, **run, "rows": [asdict(row) for row in rows]})
        return
    print_table(
        f"A flagged series of {slices} slices",
        ("object", ">ms to build it", ">KB of its file"),
        ((row.kind, number(row.ms, 0), number(row.size_kb, 0)) for row in rows),
    )
    typer.echo("Median of {} rounds on {cores} cores of {processor}.".format(rounds, **machine))


def _reception_cells(rows: Sequence[Measured]) -> Iterator[tuple[str, ...]]:
    (reference,) = [row for row in rows if row.name == "Orthanc"]
    for row in rows:
        rates = row.median(1), row.median(4)
        others = reference.median(1), reference.median(4)
        ratios = [a / b if a and b else None for a, b in zip(rates, others, strict=True)]
        yield row.name, *(number(rate, 0) for rate in rates), *map(number, ratios), row.remark
