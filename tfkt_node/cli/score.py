"""`tfkt-node score`: assess files and folders here and now, without a node."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkt_node.cli.options import Json, load_settings
from tfkt_node.cli.output import (
    complain,
    confidence,
    counted,
    interval,
    number,
    print_json,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from tfkt_node.cli.document import AssessedSeries
    from tfkt_node.cli.intake import GivenFile, GivenSeries
    from tfkt_node.iqa.bundle import Bundle
    from tfkt_node.records import SliceScore
    from tfkt_node.settings import Settings

NAMED_FILES = 20
"""Paths without a score that are named for people; --json names all."""


def score(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            exists=True,
            help="Files and folders (with all that is in them), DICOM or not.",
        ),
    ],
    as_json: Json = False,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            dir_okay=False,
            help="Write a picture: scores along the body, the worst slice and where it is poor, "
            "the best slice.",
        ),
    ] = None,
) -> None:
    """Score CT files and folders, here and now.

    Each series gets a verdict, and every file given is accounted for.
    Exit code 1 when a series FAILED or when nothing given was DICOM.
    """
    from tfkt_node import logs
    from tfkt_node.cli import document, intake
    from tfkt_node.iqa.bundle import load as load_bundle

    settings = load_settings(context)
    _refuse_unwritable(figure)
    bundle = load_bundle(settings.scoring.bundle)
    logs.configure(settings.logging)
    with tempfile.TemporaryDirectory(prefix="tfkt-node-") as scratch:
        given = intake.settle_repeats(_read_files(paths, Path(scratch)))
        assessed = _assess(settings, intake.group_series(given))
        given = document.settle_outcomes(given, assessed)
        if as_json:
            print_json(document.document(given, assessed, bundle, settings.criteria))
        else:
            _print_series(assessed)
            _print_files(given)
        if figure is not None:
            _draw(figure, assessed, settings, bundle)
    _exit(given, assessed)


def _refuse_unwritable(figure: Path | None) -> None:
    if figure is None:
        return
    if figure.suffix.lower() != ".png":
        problem = f"the picture is a PNG: give a name that ends in .png, not {figure.name}"
        raise typer.BadParameter(problem, param_hint="--figure")
    if not figure.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {figure.parent}", param_hint="--figure")


def _read_files(paths: Sequence[Path], scratch: Path) -> list[GivenFile]:
    from tfkt_node.cli.intake import find_files, read_file

    found = list(find_files(paths))
    with progress() as bar:
        return [read_file(path, scratch) for path in bar.track(found, description="Reading")]


def _assess(settings: Settings, series: Sequence[GivenSeries]) -> list[AssessedSeries]:
    """Assess every series in one scoring process; a series that breaks it is FAILED."""
    from tfkt_node import assess
    from tfkt_node.cli.document import AssessedSeries
    from tfkt_node.scorer import Scorer, ScoringFailed

    assessed = []
    with progress() as bar, Scorer(settings) as scorer:
        for one in bar.track(series, description="Scoring"):
            try:
                assessment = scorer.submit(one.instances, one.attributes)
            except ScoringFailed as failure:
                assessment = assess.failed(
                    settings, one.instances, one.attributes, failure.reason, failure.detail
                )
            assessed.append(AssessedSeries(one, assessment))
    return assessed


def _draw(
    target: Path, assessed: Sequence[AssessedSeries], settings: Settings, bundle: Bundle
) -> None:
    from tfkt_node.cli.figure import Panel, draw, local_scores

    panels = [
        Panel(
            one.series.description or f"Series {count}",
            one.assessment,
            one.series.instances,
            settings.limits,
        )
        for count, one in enumerate(assessed, start=1)
        if _worst(one) is not None
    ]
    if not panels:
        complain("no slice was scored, so no picture was written")
        return
    try:
        draw(target, panels, local_scores(bundle, settings.scoring))
    except OSError as error:
        raise typer.BadParameter(f"{target}: {error.strerror}", param_hint="--figure") from None


def _worst(one: AssessedSeries) -> SliceScore | None:
    deciding = one.assessment.deciding_stack
    return None if deciding is None else one.assessment.stacks[deciding].minimum


def _print_series(assessed: Sequence[AssessedSeries]) -> None:
    for count, one in enumerate(assessed, start=1):
        title = f"Series {count} of {len(assessed)}"
        if one.series.description:
            title += f": {one.series.description}"
        print_table(title, (), [*_series_lines(one), ("", "")])


def _series_lines(one: AssessedSeries) -> list[tuple[str, str]]:
    assessment = one.assessment
    lines = [("Series UID", one.series.series_uid), ("outcome", str(assessment.outcome))]
    if assessment.reason is not None:
        lines.append(("reason", f"{assessment.reason}: {assessment.reason.sentence}"))
        if assessment.detail:
            lines.append(("detail", assessment.detail))
        return lines
    assert assessment.deciding_stack is not None
    stack = assessment.stacks[assessment.deciding_stack]
    lines += [
        ("score", f"{number(assessment.score)}  (90 %: {interval(assessment.interval)})"),
        ("verdict", f"{assessment.verdict}, {'flagged' if assessment.flagged else 'not flagged'}"),
        ("confidence", confidence(assessment.confidence, ())),
        *(("", reason.sentence) for reason in assessment.confidence_reasons),
        ("slices", f"{counted(stack.in_scope, 'slice')} in scope, {stack.out_of_scope} out"),
    ]
    if len(assessment.stacks) > 1:
        place = assessment.deciding_stack + 1
        lines.append(("stacks", f"{len(assessment.stacks)}; stack {place} gave the verdict"))
    worst = _worst(one)
    if worst is not None:
        lines.append(("its worst slice", _place(worst, one)))
    return lines


def _place(worst: SliceScore, one: AssessedSeries) -> str:
    frame = "" if worst.frame is None else f", frame {worst.frame}"
    at = "" if worst.position_mm is None else f" at {worst.position_mm:.1f} mm"
    return f"{number(worst.score)}{at}: {one.paths[worst.digest]}{frame}"


def _print_files(given: Sequence[GivenFile]) -> None:
    from tfkt_node.cli.intake import FileOutcome

    counts = [
        f"{sum(file.outcome is outcome for file in given)} {outcome.replace('_', ' ')}"
        for outcome in FileOutcome
        if any(file.outcome is outcome for file in given)
    ]
    typer.echo(f"{counted(len(given), 'file')}: {', '.join(counts) or 'nothing to read'}")
    others = [file for file in given if file.outcome is not FileOutcome.SCORED]
    if not others:
        return
    rows = [
        (str(file.path), str(file.outcome).replace("_", " "), _why(file))
        for file in others[:NAMED_FILES]
    ]
    print_table("Not scored", ("file", "outcome", "why"), rows)
    if len(others) > NAMED_FILES:
        typer.echo(f"… and {len(others) - NAMED_FILES} more; --json names all.")


def _why(file: GivenFile) -> str:
    if file.duplicate_of is not None:
        return f"same as {file.duplicate_of}"
    return file.reason.sentence if file.reason is not None else ""


def _exit(given: Sequence[GivenFile], assessed: Sequence[AssessedSeries]) -> None:
    from tfkt_node.cli.intake import FileOutcome
    from tfkt_node.records import Outcome

    failed = sum(one.assessment.outcome is Outcome.FAILED for one in assessed)
    if failed:
        complain(f"{failed} of {counted(len(assessed), 'series', 'series')} FAILED")
        raise typer.Exit(1)
    if all(file.outcome is FileOutcome.REFUSED for file in given):
        complain("nothing given was DICOM")
        raise typer.Exit(1)
