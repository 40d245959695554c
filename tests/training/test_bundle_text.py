"""What a bundle says of itself follows from what it was fitted to."""

from __future__ import annotations

import dataclasses

import pytest

from tests.training.rows import row
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.training.recipe import Recipe

CALIBRATION = Calibration(1.0, -0.5, 0.8, 0.7, 0.9, series=(0.45, 0.35))
SIMULATED = [
    row(),
    row(kind="dose", dose=0.5),
    row(kind="smoothed", detail="gaussian 1.0"),
    row(kind="smoothed", detail="median 0.8"),
    row(file="b.png", patient="b"),
]
SCORED = [row(kind="readers", file=f"LDCTIQAC-{n}", patient=f"LDCTIQAC-{n}") for n in range(3)]


@pytest.fixture
def text(require_module):
    """tfkt_node.training.bundles.bundle_text, imported late: it needs torch."""
    require_module("torch")
    from tfkt_node.training.bundles import bundle_text

    return bundle_text


def test_readme_counts_what_was_simulated(text):
    """Slices, people, versions and filters are those of the run, as are the widths of intervals."""
    told = " ".join(text.readme(Recipe(), SIMULATED, CALIBRATION, []).split())

    assert "2 slices of 2 adults, at most 4 of each, in 5 versions" in told
    assert "2 families of filters" in told
    assert "the score -0.8 +0.7 (90 %" in told
    assert "it is the score -0.45 +0.35" in told
    assert "-0.5 points" in told
    assert "{" not in told


def test_readers_are_named_only_where_they_were_asked(text):
    """Fitted to slices that readers scored, card and README say so; without, that none was."""
    without = text.describe(Recipe(), SIMULATED, CALIBRATION, [])
    with_some = text.describe(Recipe(), [*SIMULATED, *SCORED], CALIBRATION, [])

    assert without.data["readers"].startswith("none: labels are computed")
    assert "learnt a computed label, not readers" in without.readme
    assert "in sample. Three" not in " ".join(without.readme.split())

    assert with_some.data["readers"].startswith("3 images of LDCTIQAC 2023")
    told = " ".join(with_some.readme.split())
    assert "and of 3 images of LDCTIQAC 2023 what their readers said" in told
    assert "CC BY-NC-SA" in told
    assert "these figures are in sample" in told
    assert "not readers. The label" not in told
    assert "2 slices of 2 adults" in told


def test_readme_says_what_the_network_sees(text):
    """A network with one window has no noise maps to speak of."""
    plain = Recipe()
    network = dataclasses.replace(plain.network, inputs="wide", feed_forward="mlp")

    told = text.readme(dataclasses.replace(plain, network=network), SIMULATED, CALIBRATION, [])

    assert "one wide window" in told
    assert "measures of noise" not in told
    assert "MLP feed-forward" in told


def test_rival_without_bounds_is_no_rival_beaten(text):
    """Below eight patients no interval is claimed, and so no difference."""
    from tfkt_node.training.judging.evaluation import Figure

    figures = [Figure("all: SROCC over noise formula", 0.2, "tfkt-node train")]

    told = text.readme(Recipe(), SIMULATED, CALIBRATION, figures)

    assert "**Against the noise formula no difference is shown over all versions.**" in told
