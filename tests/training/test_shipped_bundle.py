"""The shipped bundle keeps what its card promises, on patients it never saw."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.assess import Assessor
from tfkt_node.iqa import bundle
from tfkt_node.iqa.engine import fit_to_grid, open_engine
from tfkt_node.iqa.uncertainty import squash
from tfkt_node.records import CT_IMAGE, InstanceRef
from tfkt_node.settings import Settings
from tfkt_node.training.images import real_images
from tfkt_node.training.images.slice_files import read_slice
from tfkt_node.training.judging import behaviour, on_real_images
from tfkt_node.training.track import untracked

pytestmark = pytest.mark.station


@pytest.fixture(scope="module")
def shipped():
    return bundle.load("tfkt-v2-lite")


@pytest.fixture(scope="module")
def found(shipped, shared_data, require_module):
    """What `evaluate` finds: anchors, real pairs, and series that no fit has seen."""
    require_module("skimage")
    engine = open_engine(shipped, "openvino")
    return on_real_images.on_real_images(shipped, engine, shared_data, untracked)


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


def scores_of(shipped, *slices):
    """Scores of slices of any matrix, through the engine that serves."""
    grids = np.stack([fit_to_grid(hu) for hu in slices])
    return shipped.calibration.scores(open_engine(shipped, "openvino").quality(grids))


def test_metal_and_padding_change_no_score(shipped, shared_data):
    """A pixel at 3071 HU, and -3024 outside the field of view, move no score by more than 0.1."""
    y, x = np.mgrid[:512, :512] - 255.5
    outside = np.hypot(y, x) > 256
    slices = [read_slice(one.path) for one in real_images.series_slices(shared_data)]
    round_ones = [hu for hu in slices if (hu[outside] < -500).mean() > 0.995]
    assert len(round_ones) >= 4  # in the others the arms lie there: without them it is no padding
    plain = scores_of(shipped, *slices)

    for hu in slices:
        hu[300, 250] = 3071
    metal = scores_of(shipped, *slices)
    padded = scores_of(shipped, *(np.where(outside, -3024, hu) for hu in round_ones))

    assert np.abs(metal - plain).max() <= 0.1
    kept = [any(hu is one for one in round_ones) for hu in slices]
    assert np.abs(padded - metal[kept]).max() <= 0.1


def test_other_matrices_are_scored(shipped, shared_data):
    """1024 pixels that each repeat one of 512 score the same; 256 x 256 gets a score of its own."""
    hu = read_slice(real_images.series_slices(shared_data)[0].path)

    on_512, on_1024, on_256 = scores_of(
        shipped, hu, hu.repeat(2, axis=0).repeat(2, axis=1), hu[128:384, 128:384]
    )

    assert on_1024 == pytest.approx(on_512, abs=1e-3)
    assert 0 <= on_256 <= 4


def test_slice_that_is_not_a_number_gets_no_score(shipped, shared_data):
    """P6: NaN in a slice is refused by name before any network sees it."""
    hu = read_slice(real_images.series_slices(shared_data)[0].path)
    hu[0, 0] = np.nan

    with pytest.raises(ValueError, match="finite values in HU: got NaN"):
        scores_of(shipped, hu)


def test_child_size_body_scores_as_the_adult_at_equal_noise(found):
    """Matched noise in pixels: within 0.3 of the adult on average; the card has the share."""
    rows, u = found.unseen

    apart = behaviour.child_differences(rows, squash(u), squash([row.u for row in rows]))

    assert apart.size >= 5
    assert np.abs(apart).mean() <= 0.3


def test_series_never_fitted_to_are_in_scope(shipped, shared_data):
    """At most 5 % of the slices of two whole series are refused."""
    assessor = Assessor(Settings(), shipped, open_engine(shipped, "openvino"))
    withheld = []
    for name in real_images.SERIES:
        paths = sorted((shared_data / "series" / name).glob("*.dcm"))
        found = assessor.assess([InstanceRef(p, p.name, CT_IMAGE, "1.2.3") for p in paths], b"")
        withheld += [not one.in_scope for stack in found.stacks for one in stack.slices]

    assert len(withheld) >= 90
    assert np.mean(withheld) <= 0.05


def test_bundle_is_small(shipped):
    """All files together stay under 30 MB."""
    size = sum((shipped.folder / name).stat().st_size for name in bundle.FILES)

    assert size < 30e6
