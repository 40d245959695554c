"""`tfkt-node demo`: the whole path of an image in one terminal, in under two minutes.

A node of its own runs with temporary storage and a short quiet period, and beside it a second
reception stands in for the PACS. What it shows is the ordinary path: the node does not know that
this is a demonstration.
"""

from __future__ import annotations

import queue
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkt_node.cli.output import complain, counted, number, progress
from tfkt_node.records import CT_IMAGE, InstanceRef, Retriable, RevisionState, StoredInstance

if TYPE_CHECKING:
    from tfkt_node.cli.demo_series import DemoSeries
    from tfkt_node.node import Node
    from tfkt_node.records import Assessment, SeriesRow
    from tfkt_node.settings import Settings

QUIET_S = 3.0
PATIENCE_S = 300.0
"""How long a slow machine may take before the demonstration gives up."""
LOOK_S = 0.2

KINDS = {
    "1.2.840.10008.5.1.4.1.1.88.59": "key images",
}
REPORT = "report"


def demo(
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="DIR",
            exists=True,
            help="Take the largest CT series in this folder instead of a simulated body.",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="DIR", file_okay=False, help="Where the results go."),
    ] = Path("tfkt-node-demo"),
) -> None:
    """Show the whole path, from scan to report.

    One body is scanned at full dose and at a tenth of it. A node and a small PACS start on this
    machine's loopback, both series go through real DICOM associations, and what is left to look at
    are the images, the reports and a picture.
    """
    from tfkt_node import logs
    from tfkt_node.iqa.bundle import load
    from tfkt_node.settings import Logging, Scoring

    began = time.monotonic()
    logs.configure(Logging(level="ERROR", format="text"))
    _make_room(source, output)
    load(Scoring().bundle)  # says at once, and clearly, when the bundle is not there
    both = _make_series(source, output)
    with tempfile.TemporaryDirectory(prefix="tfkt-node-demo-") as scratch:
        pacs = Pacs(Path(scratch) / "pacs")
        try:
            with _node(_settings(Path(scratch) / "node", pacs.port)) as node:
                _step(f"A PACS listens on port {pacs.port}, the node on port {node.port}.")
                _send(node, both)
                rows = _wait(node, pacs, both)
                assessments = [_assessment(node, one) for one in both]
        finally:
            pacs.stop()
        files = _keep_reports(pacs, both, output)
    picture = _draw(output, both, assessments)
    _step(f"Done in {time.monotonic() - began:.0f} s. To look at:")
    for path in (*([picture] if picture else []), *files, *(one.paths[0].parent for one in both)):
        typer.echo(f"     {path}")
    if any(row.state is RevisionState.FAILED for row in rows):
        complain("a series FAILED; see the lines above")
        raise typer.Exit(1)


LEFT = ("full-dose/slice-*.dcm", "tenth-dose/slice-*.dcm", "report-*.dcm", "key-images-*.dcm")
"""What an earlier demonstration leaves in its output."""


def _make_room(source: Path | None, output: Path) -> None:
    """Take away what an earlier demonstration left, so that no two studies are mixed."""
    if source is not None and source.resolve().is_relative_to(output.resolve()):
        raise typer.BadParameter(
            "lies in --output, where files are replaced; name another --output",
            param_hint="--input",
        )
    for pattern in LEFT:
        for path in output.glob(pattern):
            path.unlink()


def _step(text: str) -> None:
    typer.echo(f"• {text}")


def _track(numbers: Sequence[int], description: str) -> Iterable[int]:
    with progress() as bar:
        yield from bar.track(numbers, description=description)


def _make_series(source: Path | None, output: Path) -> tuple[DemoSeries, DemoSeries]:
    from tfkt_node.cli import demo_series

    output.mkdir(parents=True, exist_ok=True)
    if source is not None:
        _step("Taking the largest CT series, and a copy of it at a tenth of the dose …")
        return demo_series.input_series(source, output, _track)
    _step("Scanning a simulated abdomen, at full dose and at a tenth of the dose …")
    return demo_series.phantom_series(output, datetime.now().astimezone(), _track)


class Pacs:
    """A second reception, in the place of a PACS: it keeps what the node delivers."""

    def __init__(self, folder: Path) -> None:
        """Listen on a free port of loopback."""
        from tfkt_node.reception.association import StorageSCP
        from tfkt_node.reception.door import Door
        from tfkt_node.reception.instances import Spool
        from tfkt_node.settings import Reception

        self.received: list[Path] = []
        self._arrivals: queue.Queue[object] = queue.Queue()
        reception = Reception(ae_title="DEMO_PACS", port=0)
        self._scp = StorageSCP(
            reception,
            Door(reception, ()),
            Spool(folder),
            self._arrivals.put,
            decodable=(),
            clock=lambda: datetime.now(UTC),
        )
        self._scp.start()
        self.port = self._scp.port

    def stop(self) -> None:
        """Stop listening."""
        self._scp.stop(5.0)

    def newly_received(self) -> Iterator[Path]:
        """Yield the files that have come since the last call."""
        while not self._arrivals.empty():
            arrival = self._arrivals.get()
            if isinstance(arrival, StoredInstance):
                self.received.append(arrival.path)
                yield arrival.path


def _settings(folder: Path, pacs_port: int) -> Settings:
    """Make settings that no environment variable reaches."""
    from tfkt_node import settings

    folder.mkdir(parents=True)
    pacs = settings.Peer(
        name="pacs", ae_title="DEMO_PACS", host="127.0.0.1", port=pacs_port, deliver=True
    )
    return settings.Settings.model_construct(
        reception=settings.Reception(port=0, disk_reserve_mb=0),
        series=settings.Series(quiet_s=QUIET_S),
        storage=settings.Storage(spool=folder / "spool"),
        logging=settings.Logging(level="ERROR", format="text"),
        peers=(pacs,),
    )


@contextmanager
def _node(settings: Settings) -> Iterator[Node]:
    from tfkt_node.audit import store
    from tfkt_node.node import Node

    settings.storage.spool.mkdir(parents=True)
    store.upgrade(settings.storage.database_url)
    with Node(settings) as node:
        yield node


def _send(node: Node, both: Sequence[DemoSeries]) -> None:
    """Send each series to the node as a modality would, over an association of its own."""
    from tfkt_node.delivery import store_scu
    from tfkt_node.settings import Delivery, Peer

    itself = Peer(
        name="node", ae_title=node.settings.reception.ae_title, host="127.0.0.1", port=node.port
    )
    for one in both:
        began = time.monotonic()
        answers = list(store_scu.send(itself, Delivery(ae_title="DEMO_CT"), one.paths))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        _step(
            f"Sent “{one.name}”: {counted(len(answers), 'instance')} stored and answered 0x0000 "
            f"in {time.monotonic() - began:.1f} s."
        )
    _step(f"The node waits until a series has been quiet for {QUIET_S:g} s, then scores it …")


def _wait(node: Node, pacs: Pacs, both: Sequence[DemoSeries]) -> list[SeriesRow]:
    """Tell what happens until every series has its outcome and the PACS has every object."""
    names = {one.series_uid: one.name for one in both}
    told: set[str] = set()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        rows = [row for row in node.store.series_rows() if row.series_uid in names]
        for row in rows:
            if row.decided_at is not None and row.series_uid not in told:
                told.add(row.series_uid)
                _step(f"“{names[row.series_uid]}”: {_said(row)}.")
        for path in pacs.newly_received():
            kind, series_uid = _what(path)
            _step(f"The PACS has received the {kind} of “{names[series_uid]}”.")
        owed = sum(1 + row.flagged for row in rows)
        if len(told) == len(names) and len(pacs.received) >= owed:
            return rows
        time.sleep(LOOK_S)
    raise Retriable(
        f"the demonstration was not done after {PATIENCE_S:g} s: "
        f"{counted(len(told), 'verdict')} and {counted(len(pacs.received), 'object')} so far"
    )


def _said(row: SeriesRow) -> str:
    assert row.decided_at is not None
    took = (row.decided_at - row.last_arrival_at).total_seconds()
    after = f"{took:.1f} s after its last instance"
    if row.verdict is None:
        return f"{row.state} ({row.reason}) {after}"
    flag = "flagged" if row.flagged else "not flagged"
    return f"score {number(row.score)}, {row.verdict}, {row.confidence}, {flag}, {after}"


def _what(path: Path) -> tuple[str, str]:
    """Return what a received object is, and the series that it is about."""
    from pydicom import dcmread

    ds = dcmread(path)
    kind = KINDS.get(str(ds.SOPClassUID), REPORT)
    study = ds.CurrentRequestedProcedureEvidenceSequence[0]
    return kind, str(study.ReferencedSeriesSequence[0].SeriesInstanceUID)


def _assessment(node: Node, one: DemoSeries) -> Assessment:
    verdict = node.store.series_detail(one.series_uid)["verdicts"][-1]
    return node.store.report_record(verdict["id"]).assessment


def _keep_reports(pacs: Pacs, both: Sequence[DemoSeries], output: Path) -> list[Path]:
    """Copy what the PACS has received to names that people can read."""
    names = {one.series_uid: one.name for one in both}
    kept = []
    for path in pacs.received:
        kind, series_uid = _what(path)
        target = output / f"{kind}, {names[series_uid]}.dcm".replace(", ", "-").replace(" ", "-")
        shutil.copyfile(path, target)
        kept.append(target)
    return sorted(kept)


def _draw(
    output: Path, both: Sequence[DemoSeries], assessments: Sequence[Assessment]
) -> Path | None:
    """Draw the scores of both series, each with its worst and its best slice."""
    from tfkt_node.cli.figure import Panel, draw, local_scores
    from tfkt_node.iqa.bundle import load
    from tfkt_node.reception.file_meta import SOP_INSTANCE_UID, read_meta
    from tfkt_node.settings import Scoring

    panels = []
    for one, assessment in zip(both, assessments, strict=True):
        if assessment.deciding_stack is None:
            continue
        paths = {read_meta(path)[0].get(SOP_INSTANCE_UID): path for path in one.paths}
        slices = assessment.stacks[assessment.deciding_stack].slices
        instances = [
            InstanceRef(paths[each.sop_uid], each.digest, CT_IMAGE, each.sop_uid) for each in slices
        ]
        panels.append(Panel(one.name.capitalize(), assessment, instances))
    if not panels:
        return None
    scoring = Scoring()
    draw(output / "scores.png", panels, local_scores(load(scoring.bundle), scoring))
    return output / "scores.png"
