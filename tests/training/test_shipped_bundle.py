"""The shipped bundle keeps what its card promises, on patients it never saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfkt_node.iqa import bundle
from tfkt_node.iqa.engine import open_engine
from tfkt_node.training import evaluation, measures
from tfkt_node.training.collection import Part, clean_slices, split
from tfkt_node.training.recipe import read
from tfkt_node.training.track import untracked

pytestmark = pytest.mark.station


@pytest.fixture(scope="module")
def shipped():
    return bundle.load("tfkt-v2-lite")


@pytest.fixture(scope="module")
def held_out(shipped, shared_data, require_module):
    """Slices of exactly the patients that the bundle's card names as held out."""
    require_module("skimage")
    recipe = read(shipped.folder / bundle.RECIPE).data
    slices = clean_slices(shared_data, recipe)
    named = set(shipped.card["data"]["test_patients"])
    again = {patient for patient, part in split(slices, recipe).items() if part is Part.TEST}
    assert named == again
    return recipe, [s for s in slices if s.patient in named]


def test_score_falls_with_dose_on_unseen_patients(shipped, held_out):
    """Full, half, quarter and tenth of the dose: strictly falling scores for 90 % of slices."""
    recipe, slices = held_out
    only_doses = dataclasses.replace(
        recipe, draws=1, doses=measures.FALLING_DOSES[1:], thinned=(), smoothed=()
    )
    engine = open_engine(shipped, "openvino")

    found = evaluation.held_out(slices, only_doses, engine.quality, shipped.calibration, untracked)

    assert len(slices) >= 20
    assert measures.falls_with_dose(found.rows, found.scores) >= 0.9


def test_engines_agree_on_real_slices(shipped, held_out, require_module):
    """OpenVINO and torch give scores within 0.02 of one another (P12)."""
    from tfkt_node.training.collection import read_png

    require_module("torch")
    _, slices = held_out
    hu = np.stack([read_png(s.path) for s in slices[:6]])

    scores = [
        evaluation.reported(open_engine(shipped, kind).quality(hu), shipped.calibration)
        for kind in ("openvino", "torch")
    ]

    assert np.abs(scores[0] - scores[1]).max() <= 0.02


def test_scores_follow_readers_and_real_doses(shipped, shared_data, require_module):
    """Six images are scored in the readers' order; every real pair of doses is in order."""
    require_module("skimage")
    engine = open_engine(shipped, "openvino")

    real = evaluation.real(shared_data, engine.quality, shipped.calibration)

    scores = {name: score for name, _, score, _ in real.anchors}
    assert scores["0"] < scores["1"] < scores["2"] < scores["3"] < scores["4"] < scores["4b"]
    assert all(full > quarter for _, full, quarter in real.pairs)


def test_bundle_is_small_and_says_what_it_is(shipped):
    """Weights stay under 30 MB; the card's first line says how little training it had."""
    size = sum((shipped.folder / name).stat().st_size for name in bundle.FILES)

    assert size < 30e6
    assert (shipped.folder / bundle.CARD).read_text().startswith('summary = "A first bundle')
