"""What a radiologist sees who opens the objects in OHIF. The pictures are kept in .cache/viewer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT, skip_or_fail
from tests.orthanc import OrthancServer
from tests.report import ohif, samples
from tests.report.validators import of_real_series
from tfkt_node.records import Confidence, Outcome, Reason, ReportRecord, Verdict
from tfkt_node.report import key_objects, structured_report

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.viewer

PATIENCE_MS = 300_000
"""A browser that draws without a graphics card on a busy machine takes its time."""

ATTEMPTS = 6

FIRST = "CT image quality: LIMITED, flagged, low confidence"
"""How the report of the first revision is listed."""

WORST = 20
"""The worst slice: the twentieth file of the series, which is image 82 and not shown first."""


@pytest.fixture(scope="module")
def record(shared_data: Path) -> ReportRecord:
    return of_real_series(shared_data / "series" / "LungFCP-01-0001", WORST)


@pytest.fixture(scope="module")
def later(record: ReportRecord, shared_data: Path) -> ReportRecord:
    """The next revision of the same series: the same worst slices with lower scores."""
    lower = of_real_series(shared_data / "series" / "LungFCP-01-0001", WORST, lowest=0.41)
    first = structured_report.build(record, 10)
    return replace(
        lower,
        verdict_id="later",
        revision_number=2,
        before=(samples.before(verdict=Verdict.LIMITED),),
        predecessor=samples.predecessor(first),
        assessment=replace(
            lower.assessment,
            verdict=Verdict.NON_DIAGNOSTIC,
            confidence=Confidence.CONFIDENT,
            confidence_reasons=(),
        ),
    )


@pytest.fixture(scope="module")
def study(
    record: ReportRecord,
    later: ReportRecord,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    require_tool: Callable[[str], str],
    require_module: Callable[[str], None],
) -> Iterator[str]:
    """The address in OHIF of a study with its images, three reports and a Key Object Selection."""
    require_tool("Orthanc")
    require_module("playwright")
    if not ohif.PLUGIN.exists():
        skip_or_fail("the package orthanc-dicomweb is not installed")
    not_assessed = samples.unassessed(Outcome.NOT_ASSESSED, Reason.HEAD, detail="36 of 36 slices")
    objects = (
        structured_report.build(record, 10),
        structured_report.build(later, 10),
        key_objects.build(record),
        structured_report.build(replace(record, verdict_id="another", assessment=not_assessed), 10),
    )
    images = sorted((shared_data / "series" / "LungFCP-01-0001").glob("*.dcm"))
    folder = tmp_path_factory.mktemp("pacs")
    with OrthancServer(folder, **ohif.ORTHANC_OPTIONS) as pacs:
        for content in (*(path.read_bytes() for path in images), *(one.content for one in objects)):
            pacs.add(content)
        with ohif.OhifServer(ohif.ohif_folder(), pacs.http_port) as server:
            yield server.study(record.study_uid)


@pytest.fixture(scope="module")
def viewer(study: str, require_tool: Callable[[str], str]) -> Iterator[Viewer]:
    """A browser with the study open."""
    with ohif.browser_page(require_tool) as page:
        yield Viewer(page, study)


class Viewer:
    """OHIF in a browser, and what its scripts have complained of since the last series opened."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.complaints.append(f"Error: {error}"))
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.goto(address, wait_until="commit")
        # Events are handed over without waiting for a quiet page: a slow one is never quiet.
        page.get_by_text("Skip all").dispatch_event("click")
        # A series opened before the images are shown would be replaced by them.
        self.await_text(re.compile(r"I:\s*\d+ \(\d+/36\)"))

    def open(self, description: str, expected: str | re.Pattern[str]) -> None:
        """Open a series by its description, and wait until a text is to be seen.

        While the page is still busy with the images it lets a double click fall; so it is done
        again, as a person would.
        """
        from playwright.sync_api import TimeoutError as NotYet

        for _ in range(ATTEMPTS):
            self.complaints.clear()
            self.page.get_by_text(description, exact=True).first.dispatch_event("dblclick")
            with suppress(NotYet):
                return self.await_text(expected, PATIENCE_MS / ATTEMPTS)
        raise AssertionError(f"opening {description!r} never showed {expected!r}")

    def await_text(self, text: str | re.Pattern[str], patience_ms: float = PATIENCE_MS) -> None:
        """Wait until a text is to be seen."""
        self.page.get_by_text(text).first.wait_for(timeout=patience_ms)

    def await_complaint(self, text: str) -> None:
        """Wait until the scripts have complained so."""
        until = time.monotonic() + PATIENCE_MS / 1000
        while not any(text in line for line in self.complaints) and time.monotonic() < until:
            self.page.wait_for_timeout(100)
        assert any(text in line for line in self.complaints)

    def shown(self, name: str) -> str:
        """Keep a picture and return what the viewport says; nothing may have broken."""
        folder = ROOT / ".cache" / "viewer"
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")
        assert "Something went wrong" not in self.page.locator("body").inner_text()
        assert [] == [line for line in self.complaints if line.lower().startswith("error")]
        text: str = self.page.locator("[data-cy=viewport-pane]").inner_text()
        return text


def test_report_opens_on_the_worst_slice_with_verdict_and_score(
    record: ReportRecord, viewer: Viewer
) -> None:
    """The viewer leaves the slice that it showed, and writes verdict and numbers beside it."""
    viewer.open(FIRST, re.compile("^Image Set Quality Rating"))
    viewer.await_text(re.compile(r"I:\s*82 \(20/36\)"))
    shown = viewer.shown("report")

    assert "LIMITED, flagged" in shown
    assert "Low confidence" in shown
    score = record.assessment.stacks[0].score
    assert f"Image Set Quality Rating: {score:.2f} {{score}}" in shown
    assert f"90 % interval, low: {score - 0.3123:.2f} {{score}}" in shown


def test_later_revision_shows_its_own_words_and_the_first_its_own_again(
    record: ReportRecord, later: ReportRecord, viewer: Viewer
) -> None:
    """Opened in turn, neither report is drawn with what the viewer kept of the other.

    Straight back to a report that it has shown before, OHIF 3.13.2 would leave the words of the one
    in between; by way of the images it draws them anew.
    """
    for number, (one, description, verdict) in enumerate(
        (
            (record, FIRST, "LIMITED, flagged"),
            (later, "CT image quality: NON-DIAGNOSTIC, flagged", "NON-DIAGNOSTIC, flagged"),
            (record, FIRST, "LIMITED, flagged"),
        )
    ):
        viewer.open("Thorax 2.0 B31f", re.compile(r"I:\s*\d+ \(1/36\)"))
        score = f"Image Set Quality Rating: {one.assessment.stacks[0].score:.2f} {{score}}"
        viewer.open(description, re.compile(f"^{re.escape(score)}"))
        viewer.await_text(re.compile(r"I:\s*82 \(20/36\)"))
        shown = viewer.shown(f"revision-{number + 1}")

        assert [score] == re.findall(r"Image Set Quality Rating: [\d.]+ \{score\}", shown)
        assert [verdict] == re.findall(r"(?:NON-DIAGNOSTIC|LIMITED), flagged", shown)


def test_report_without_a_score_opens_as_text(viewer: Viewer) -> None:
    """P6: what was not assessed is said in sentences, and no black viewport hides it."""
    viewer.open("CT image quality: NOT ASSESSED", "CT Image Quality Report")
    shown = viewer.shown("not-assessed")

    assert "was not assessed, and no score exists. The image shows a head" in shown
    assert "Outcome: Not assessed" in shown


def test_key_objects_are_listed_and_do_not_open(viewer: Viewer) -> None:
    """OHIF 3.13.2 lists a Key Object Selection; opening it changes nothing and breaks nothing."""
    viewer.open("CT quality issue: LIMITED", "CT quality issue: LIMITED")
    viewer.await_complaint("Unsupported displaySet")

    assert viewer.shown("key-objects")  # what was open before is still there
