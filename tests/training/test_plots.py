"""Pictures for those who judge a model: what they say is what they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tfkt_node.training.judging.plots import (
    GAP_PX,
    LABEL_PX,
    WORDS_PX,
    Example,
    Judged,
    rows,
    scatter,
)

pytestmark = pytest.mark.station


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, to look into."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def judged(patients: int) -> Judged:
    random = np.random.default_rng(2)
    label = random.uniform(0, 4, 12 * patients)
    said = label + random.normal(0, 1.0, len(label))
    kinds = ["dose", "views", "smoothed"] * (4 * patients)
    return Judged(label, said, kinds, [f"P{n // 12}" for n in range(len(label))])


def test_scatter_has_a_panel_of_all_and_one_a_kind(tmp_path: Path, drawn: list[Figure]) -> None:
    """Every image stands in two panels: that of all, and that of its kind."""
    one = judged(10)

    scatter(tmp_path / "a.png", one, [(0.0, 0.3), (4.0, 3.6)], seed=1)

    panels = [axes for axes in drawn[0].axes if axes.get_title()]
    assert [panel.get_title().partition(":")[0] for panel in panels] == [
        "all", "dose", "views", "smoothed",
    ]  # fmt: skip
    points = [sum(len(dots.get_offsets()) for dots in panel.collections) for panel in panels]
    assert points == [120 + 2, 40, 40, 40]
    assert np.ptp(imread(tmp_path / "a.png")[..., :3]) > 0.9


def test_titles_give_the_interval_by_patient(tmp_path: Path, drawn: list[Figure]) -> None:
    """95 % by bootstrap around the correlation; the same seed gives the same words."""
    scatter(tmp_path / "a.png", judged(10), [], seed=1)
    scatter(tmp_path / "b.png", judged(10), [], seed=1)

    first, second = (figure.axes[0].get_title() for figure in drawn)
    words = first.replace("(", " ").replace(")", " ").split()
    found, low, high = (float(words[place]) for place in (2, 5, 7))
    assert low < found < high < 1
    assert "10 patients" in first
    assert first == second


def test_few_patients_have_no_interval(tmp_path: Path, drawn: list[Figure]) -> None:
    """Under 8 patients the correlation stands alone."""
    scatter(tmp_path / "a.png", judged(7), [], seed=1)

    assert "%" not in drawn[0].axes[0].get_title()
    assert "7 patients" in drawn[0].axes[0].get_title()


def test_rows_stand_by_label_highest_first(tmp_path: Path, drawn: list[Figure]) -> None:
    """A row a label, as many places as the longest row, each slice with its words."""
    hu = np.random.default_rng(1).normal(40, 30, (512, 512)).astype(np.float32)
    examples = {0.0: [Example(hu, "dose 1/32")], 4.0: [Example(hu, "clean"), Example(hu, "b")]}

    rows(tmp_path / "a.png", examples)

    assert [axes.get_title() for axes in drawn[0].axes] == ["clean", "b", "dose 1/32"]
    assert [text.get_text() for text in drawn[0].texts] == ["4", "0"]
    tops = [axes.get_position().y1 for axes in drawn[0].axes]
    assert tops[0] == pytest.approx(tops[1])
    assert tops[1] > tops[2]


def test_rows_show_each_pixel_once(tmp_path: Path) -> None:
    """Noise looks as it is: every pixel of the slice is one of the picture, in the window."""
    hu = np.random.default_rng(1).normal(40, 300, (96, 96)).astype(np.float32)

    rows(tmp_path / "a.png", {2.0: [Example(hu, "one"), Example(hu, "two")]})

    picture = imread(tmp_path / "a.png")[..., 0]
    expected = np.clip((hu + 160) / 400, 0, 1)
    for left in (LABEL_PX, LABEL_PX + 96 + GAP_PX):
        shown = picture[WORDS_PX:, left : left + 96]
        assert np.abs(shown - expected).max() < 0.01
