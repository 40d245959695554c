"""The picture of scores: legible for any series, and without an identifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from pydicom import Dataset

from tests.cli.conftest import ct, save
from tests.cli.test_document import assessed
from tfkt_node.cli.figure import MOST_PANELS, Panel, draw, worst
from tfkt_node.records import CT_IMAGE, Assessment, Confidence, FloatArray, InstanceRef, Reason
from tfkt_node.settings import Limits

pytestmark = pytest.mark.station


LONG_LIST = (
    Reason.TOO_FEW_SLICES,
    Reason.PHYSICS,
    Reason.COVERAGE,
    Reason.INTERVAL,
    Reason.AGE_UNKNOWN,
)


def height(path: Path) -> int:
    return int(imread(path).shape[0])


def panel(path: Path, assessment: Assessment) -> Panel:
    """Every slice of the assessment is that of one file."""
    slices = [one for stack in assessment.stacks for one in stack.slices]
    return Panel(
        "Series 1",
        assessment,
        [InstanceRef(path, one.digest, CT_IMAGE, "2.25.0") for one in slices],
    )


def places(hu: FloatArray) -> FloatArray:
    return np.linspace(0, 4, 64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, to look into."""
    figures: list[Figure] = []
    save_figure = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        figures.append(figure)
        save_figure(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def is_text(artist: Artist, said: str) -> bool:
    return isinstance(artist, Text) and artist.get_text() == said


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_one_row_a_series(tmp_path: Path) -> None:
    """Each series has a row of its own."""
    one = panel(save(ct(1, size=64), tmp_path / "a.dcm"), assessed(2.0, 3.0).assessment)

    draw(tmp_path / "1.png", [one], places)
    draw(tmp_path / "2.png", [one, one], places)

    assert height(tmp_path / "2.png") == pytest.approx(2 * height(tmp_path / "1.png"), abs=1)


def test_worst_and_best_slice_are_named_with_their_scores(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    """Beside the scores stand the lowest, where it is poor, and the highest."""
    one = panel(save(ct(1, size=64), tmp_path / "a.dcm"), assessed(2.0, 1.5, 3.0).assessment)

    draw(tmp_path / "a.png", [one], places)

    shown = " | ".join(titles(drawn[0]))
    assert "worst slice at 0.0 mm: score 2.00" in shown
    assert "score by place" in shown
    assert "best slice at 10.0 mm: score 3.00" in shown


def test_a_long_heading_stays_over_its_own_panel(tmp_path: Path, drawn: list[Figure]) -> None:
    """Verdict, score and flag stand in a line of their own; many reasons take more lines."""
    found = replace(
        assessed(1.0).assessment,
        confidence=Confidence.LOW_CONFIDENCE,
        confidence_reasons=LONG_LIST,
    )

    draw(tmp_path / "a.png", [panel(save(ct(1, size=64), tmp_path / "a.dcm"), found)], places)

    _, verdict, *reasons = titles(drawn[0])[0].split("\n")
    assert "flagged" in verdict
    assert len(reasons) > 1
    scores, worst_slice = drawn[0].axes[:2]
    (heading,) = (one for one in scores.get_children() if is_text(one, titles(drawn[0])[0]))
    assert heading.get_window_extent().x1 < worst_slice.get_window_extent().x0


@pytest.mark.parametrize(("size", "side"), [(64, 512), (512, 512), (700, 700)])
def test_places_lie_over_what_the_network_saw_there(
    tmp_path: Path, drawn: list[Figure], size: int, side: int
) -> None:
    """The map covers the network's square, in whose middle a small slice lies."""
    one = panel(save(ct(1, size=size), tmp_path / "a.dcm"), assessed(2.0).assessment)

    draw(tmp_path / "a.png", [one], places)

    (axes,) = [axes for axes in drawn[0].axes if "place" in axes.get_title(loc="left")]
    slice_, local = axes.images
    left, right, bottom, top = local.get_extent()
    assert (right - left, bottom - top) == (side, side)
    assert (left + right, bottom + top) == (size - 1, size - 1)  # pixel 0 is centred on 0
    assert axes.get_xlim() == (-0.5, size - 0.5)
    assert slice_.get_array().shape == (size, size)


def test_a_network_without_places_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    """A map that is the same everywhere is no finding, and is not drawn as one."""
    one = panel(save(ct(1, size=64), tmp_path / "a.dcm"), assessed(2.0).assessment)

    draw(tmp_path / "a.png", [one], lambda hu: np.full((8, 8), 2.0, np.float32))

    assert "this bundle tells no places apart" in texts(drawn[0])


def test_all_stacks_are_drawn_the_deciding_one_in_colour(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    """Scores of other stacks stand behind in grey, each word of the legend once."""
    assessment = assessed(2.0, 3.0).assessment
    (deciding,) = assessment.stacks

    def other(first: int) -> Sequence[object]:
        moved = (replace(one, digest=f"{first}{one.digest[1:]}") for one in deciding.slices)
        return tuple(moved)

    stacks = (deciding, *(replace(deciding, slices=other(first)) for first in (8, 9)))
    assessment = replace(assessment, stacks=stacks)

    draw(tmp_path / "a.png", [panel(save(ct(1), tmp_path / "a.dcm"), assessment)], places)

    legend = drawn[0].axes[0].get_legend()
    words = [text.get_text() for text in legend.get_texts()]
    assert words.count("other stack") == 1
    assert {"DIAGNOSTIC", "below DIAGNOSTIC", "worst slice", "best slice"} < set(words)
    grey = [line for line in drawn[0].axes[0].lines if line.get_label() == "other stack"]
    assert len(grey) == 2


def test_of_many_series_the_worst_are_drawn(tmp_path: Path) -> None:
    """A picture that can still be opened: the lowest scores, in the order given."""
    assessment = assessed(2.0).assessment
    panels = [panel(tmp_path, replace(assessment, score=score)) for score in (3.0, 1.0, 2.0, 1.0)]

    assert [panels[1], panels[3]] == worst(panels, 2)
    assert panels == worst(panels)
    assert MOST_PANELS == len(worst(panels * 9))


def test_slices_without_a_position_are_drawn(tmp_path: Path) -> None:
    """Where positions are missing, slices go by their order; those out of scope are marked."""
    assessment = assessed(2.0, None, 3.0).assessment
    (stack,) = assessment.stacks
    slices = tuple(replace(one, position_mm=None, interval=None) for one in stack.slices)
    stack = replace(stack, slices=slices, minimum=slices[0])

    draw(
        tmp_path / "a.png",
        [panel(save(ct(1), tmp_path / "a.dcm"), replace(assessment, stacks=(stack,)))],
        places,
    )

    assert np.ptp(imread(tmp_path / "a.png")[..., :3]) > 0.9


def test_a_slice_that_is_gone_leaves_the_scores(tmp_path: Path) -> None:
    """If the file of the worst slice is gone the picture says so, and shows the scores."""
    draw(tmp_path / "a.png", [panel(tmp_path / "gone.dcm", assessed(2.0).assessment)], places)

    assert height(tmp_path / "a.png") > 100


def test_a_slice_beyond_the_limits_is_not_read(tmp_path: Path, drawn: list[Figure]) -> None:
    """What the settings keep from being scored is not opened for the picture either."""
    ds, item = ct(1), Dataset()
    item.ReferencedStudySequence = [Dataset()]
    ds.RequestAttributesSequence = [item]
    one = panel(save(ds, tmp_path / "a.dcm"), assessed(2.0).assessment)

    for nesting in (2, 1):
        draw(tmp_path / "a.png", [replace(one, limits=Limits(nesting=nesting))], places)

    gone = "the slice cannot be read again"
    assert [False, True] == [gone in texts(figure) for figure in drawn]
