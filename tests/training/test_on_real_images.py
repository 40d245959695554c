"""Figures on real images are counted as their names say."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.rows import doses, row
from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.training.judging.on_real_images import (
    EVALUATE,
    OnRealImages,
    ScoredAnchor,
    ScoredPair,
    SeenOtherwise,
)
from tfkt_node.training.ldctiqac import Readers
from tfkt_node.training.simulation.anchor_label import AnchorLabel


def made(u: Float64Array, readers: Readers | None = None) -> OnRealImages:
    """Two anchors in the wrong order, two pairs of which one is, and three doses of a slice."""
    return OnRealImages(
        anchors=[ScoredAnchor("1", 1.0, 2.5, 1.5, 2.0), ScoredAnchor("2", 2.0, 2.0, 2.5, 2.0)],
        labels=[AnchorLabel("1", 1.0, 1.0, 1.4), AnchorLabel("2", 2.0, 2.2, 2.2)],
        pairs=[ScoredPair("a", 3.5, 2.0), ScoredPair("b", 3.0, 3.25)],
        otherwise=SeenOtherwise(np.array([-0.5, 0.25]), np.array([0.1, 0.3])),
        unseen=([*doses(1, 0.5, 0.25), row(kind="smoothed", dose=0.25, tested_only=True)], u),
        readers=readers,
    )


def test_figures_are_what_their_names_say():
    """Errors, orders and differences, worked out by hand."""
    figures = {one.name: one.value for one in made(np.array([3.0, 2.0, 2.5, 2.2])).figures()}

    assert figures["anchors: MAE of the score"] == 0.75
    assert figures["anchors: MAE of the noise formula"] == 0.5
    assert figures["anchors: MAE of the label"] == 0.1
    assert figures["anchors: MAE of the label with constants set on the other five"] == 0.3
    assert figures["anchors: share of pairs in order"] == 0
    assert figures["real pair a: full less quarter dose"] == 1.5
    assert figures["real pairs: share in order"] == 0.5
    assert figures["real images, one value around the body: mean change of score"] == -0.125
    assert figures["real images, one value around the body: MAE of score"] == 0.375
    assert figures["real images, turned by half: mean change of score"] == 0.2
    series = "series never fitted to, "
    assert figures[f"{series}doses a factor 2 or more apart: share in order"] == pytest.approx(
        2 / 3, abs=1e-4
    )
    assert figures[f"{series}smoothed by a filter never fitted to: mean change of score"] == -0.3
    assert not any(name.startswith("LDCTIQAC") for name in figures)


def test_readers_of_the_challenge_are_asked_where_their_images_are():
    """With the challenge's folder there are five more figures; all are printed by one command."""
    figures = made(np.zeros(4), Readers(0.9, 0.8, 0.7, 0.3, -0.1)).figures()

    of_readers = {one.name: one.value for one in figures if one.name.startswith("LDCTIQAC")}
    assert list(of_readers.values()) == [0.9, 0.8, 0.7, 0.3, -0.1]
    assert {one.command for one in figures} == {EVALUATE}
