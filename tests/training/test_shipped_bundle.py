"""The shipped bundle keeps what its card promises, on patients it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.iqa import bundle
from tfkt_node.iqa.engine import open_engine
from tfkt_node.iqa.uncertainty import squash
from tfkt_node.training import behaviour, on_real_images, real_images
from tfkt_node.training.slice_files import read_slice
from tfkt_node.training.track import untracked

pytestmark = pytest.mark.station


@pytest.fixture(scope="module")
def shipped():
    return bundle.load("tfkt-v2-lite")


@pytest.fixture(scope="module")
def found(shipped, shared_data, require_module):
    """What `evaluate` finds: anchors, real pairs, and series that no fit has seen."""
    require_module("skimage")
    return on_real_images.on_real_images(shipped, shared_data, untracked)


def test_patients_of_the_real_series_were_not_fitted_to(shipped):
    """The card names every patient of the fit; those of series and pairs are not among them."""
    fitted = set(shipped.card["data"]["patients"])

    assert len(fitted) > 50
    assert not fitted & {"RIDER-Pilot-0109", "LungFCP-01-0001", "L192", "L286"}


def test_quality_falls_with_dose_on_unseen_patients(found):
    """Of two doses of one slice a factor 2 apart, the higher gets the higher quality: 98 %."""
    rows, u = found.unseen

    order = behaviour.order_of_dose(rows, u)

    assert order.size >= 50
    assert order.mean() >= 0.98


def test_anchors_and_real_pairs_are_in_order(found):
    """Six images are scored no worse than by the noise formula; every real pair is in order."""
    error = np.mean([abs(one.score - one.readers) for one in found.anchors])
    formula = np.mean([abs(one.noise_formula - one.readers) for one in found.anchors])

    assert error <= formula
    assert len(found.pairs) == 7
    assert all(pair.full > pair.quarter for pair in found.pairs)


def test_evaluation_prints_what_the_card_says(shipped, found):
    """Every figure of `evaluate` stands in the card, to its last digit."""
    card = {figure["name"]: figure["value"] for figure in shipped.card["figures"]}

    for figure in found.figures():
        assert card[figure.name] == pytest.approx(figure.value, abs=2e-3), figure.name


def test_engines_agree_on_real_slices(shipped, shared_data, require_module):
    """OpenVINO and torch give scores within 0.02 of one another (P12)."""
    require_module("torch")
    slices = real_images.series_slices(shared_data)[:6]
    hu = np.stack([read_slice(one.path) for one in slices])

    scores = [squash(open_engine(shipped, kind).quality(hu)) for kind in ("openvino", "torch")]

    assert np.abs(scores[0] - scores[1]).max() <= 0.02


def test_bundle_is_small(shipped):
    """All files together stay under 30 MB."""
    size = sum((shipped.folder / name).stat().st_size for name in bundle.FILES)

    assert size < 30e6
