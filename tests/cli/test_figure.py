"""The picture of scores: legible for any series, and without an identifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.cli.conftest import ct, save
from tests.cli.test_document import assessed
from tfkt_node.cli.figure import MOST_PANELS, Panel, draw, worst
from tfkt_node.records import CT_IMAGE, Assessment, InstanceRef

pytestmark = pytest.mark.station


def height(path: Path) -> int:
    return int(imread(path).shape[0])


def panel(path: Path, assessment: Assessment) -> Panel:
    return Panel("Series 1", assessment, InstanceRef(path, "0" * 64, CT_IMAGE, "2.25.0"))


def test_one_row_a_series(tmp_path: Path) -> None:
    """Each series has a row of its own."""
    one = panel(save(ct(1, size=64), tmp_path / "a.dcm"), assessed(2.0, 3.0).assessment)

    draw(tmp_path / "1.png", [one])
    draw(tmp_path / "2.png", [one, one])

    assert 2 * height(tmp_path / "1.png") == height(tmp_path / "2.png")


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
    )

    assert np.ptp(imread(tmp_path / "a.png")[..., :3]) > 0.9


def test_a_slice_that_is_gone_leaves_the_scores(tmp_path: Path) -> None:
    """If the file of the worst slice is gone the picture says so, and shows the scores."""
    draw(tmp_path / "a.png", [panel(tmp_path / "gone.dcm", assessed(2.0).assessment)])

    assert height(tmp_path / "a.png") > 100
