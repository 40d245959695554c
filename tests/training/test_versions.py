"""Every version of a slice is made as the recipe says, with the label of what was done to it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import islice, pairwise

import imagecodecs
import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.training.images.collection import STORED_OFFSET_HU, CleanSlice
from tfkt_node.training.recipe import DataRecipe
from tfkt_node.training.simulation.label import U_RANGE, quality
from tfkt_node.training.simulation.versions import Kind, Version, versions

SIZE, PIXEL_MM, NOISE_HU = 256, 1.4, 12.0
RECIPE = DataRecipe(
    doses=(1 / 2, 1 / 4),
    thinned=(1.0, 1 / 2),
    smoothed=(1.0, 1 / 4, 1 / 4),
    tested_smoothed=(("median", 1 / 4),),
    child_doses=(1 / 2, 1 / 8),
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """An ellipse of soft tissue with a spine, 320 mm wide, with noise, as a file of ct-clean."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    hu = np.where((rows / 80) ** 2 + (columns / 115) ** 2 < 1, 50.0, -1000.0)
    hu[(rows - 45) ** 2 + columns**2 < 12**2] = 600.0
    grain = ndi.gaussian_filter(np.random.default_rng(3).standard_normal(hu.shape), 0.7)
    hu += (hu > -500) * grain * NOISE_HU / grain.std()
    path = tmp_path_factory.mktemp("clean") / "phantom_00.png"
    stored = np.round(hu + STORED_OFFSET_HU).astype(np.uint16)
    path.write_bytes(imagecodecs.png_encode(stored))
    return CleanSlice(path, "phantom", "abdomen", PIXEL_MM)


@pytest.fixture(scope="module")
def made(clean, require_module):
    require_module("skimage")
    return list(versions(clean, RECIPE))


def of(made: list[Version], *kinds: Kind) -> list[Version]:
    return [version for version in made if version.kind in kinds]


def test_each_kind_is_made_as_often_as_the_recipe_says(made):
    """The clean slice comes first; dose, views and both, filters, artefacts twice, children."""
    assert made[0].kind is Kind.CLEAN
    assert Counter(version.kind for version in made) == {
        Kind.CLEAN: 1,
        Kind.DOSE: 2,
        Kind.VIEWS: 1,
        Kind.BOTH: 1,
        Kind.SMOOTHED: 4,
        Kind.STREAKS: 6,
        Kind.CHILD: 2,
    }
    assert {version.detail for version in of(made, Kind.STREAKS)} == {
        "motion",
        "metal",
        "photon_starvation",
    }
    for version in made:
        assert version.hu.shape == (SIZE, SIZE)
        assert version.hu.dtype == np.float32
        assert -1024 <= version.hu.min() < version.hu.max() <= 3071
        assert U_RANGE[0] <= version.u <= U_RANGE[1]


def test_the_same_recipe_makes_the_same_versions(clean, made):
    """To the last pixel and label, on any day; another seed makes others."""
    for one, other in zip(made, versions(clean, RECIPE), strict=True):
        assert np.array_equal(one.hu, other.hu)
        known = [{**dataclasses.asdict(version), "hu": None} for version in (one, other)]
        assert known[0] == known[1]

    other_seed = dataclasses.replace(RECIPE, seed=RECIPE.seed + 1)
    _, changed = islice(versions(clean, other_seed), 2)
    assert not np.array_equal(changed.hu, made[1].hu)


def test_one_kernel_and_one_step_of_dose_a_slice(made):
    """Noise of one kernel in all; doses a factor 2 apart to the digit, off the recipe's by one."""
    assert len({version.kernel for version in made}) == 1
    half, quarter = (version.dose for version in of(made, Kind.DOSE))
    assert half == pytest.approx(2 * quarter)
    assert 0.5 / RECIPE.dose_jitter <= half <= 0.5 * RECIPE.dose_jitter


def test_labels_fall_with_the_dose(made):
    """Clean, half, quarter: each about a point below the last, and noisier by about sqrt 2."""
    steps = [made[0], *of(made, Kind.DOSE)]

    assert [version.source_u for version in steps] == [version.u for version in steps]
    for more, less in pairwise(steps):
        wanted = math.log2(more.dose / less.dose)
        assert more.u - less.u == pytest.approx(wanted, abs=0.4)
        assert less.noise / more.noise == pytest.approx(2 ** (wanted / 2), rel=0.15)


def test_smoothing_is_labelled_by_what_it_was_made_of(made):
    """source_u is the label of the same noise unsmoothed; what a filter took is subtracted."""
    noisy = {version.dose: version.u for version in of(made, Kind.CLEAN, Kind.DOSE)}

    for version in of(made, Kind.SMOOTHED):
        assert version.source_u == pytest.approx(noisy[version.dose], abs=1e-4)
        assert version.u < version.source_u
        assert version.u == quality(version.known)
        assert min(version.known.transfer) < 1


def test_filters_are_blended_with_their_source(clean, require_module):
    """As scanners offer them: about every other one, by 30 % and more; a tested one never."""
    require_module("skimage")
    many = dataclasses.replace(RECIPE, doses=(1 / 4,), smoothed=(1.0,) * 8 + (1 / 4,) * 8)
    smoothed = of(list(islice(versions(clean, many), 20)), Kind.SMOOTHED)

    shares = {
        tested: [
            float(one.detail.rpartition(" ")[2]) for one in smoothed if one.tested_only is tested
        ]
        for tested in (False, True)
    }

    assert shares[True] == [1.0]
    assert 3 <= sum(share < 1 for share in shares[False]) <= 13
    assert all(0.3 <= share <= 1 for share in shares[False])


def test_a_tested_filter_is_never_fitted_to(made):
    """The held-out filter is marked wherever it was used; nothing else is."""
    tested = {version.detail.partition(" ")[0] for version in made if version.tested_only}
    fitted = {
        version.detail.partition(" ")[0]
        for version in of(made, Kind.SMOOTHED)
        if not version.tested_only
    }

    assert tested == {"median"}
    assert len(fitted) == 3  # one filter after the other, none twice before all had their turn
    assert "median" not in fitted


def test_fewer_views_add_streaks(made):
    """Views and geometry are said; with less dose as well there is noise beside the streaks."""
    (views,), (both,) = of(made, Kind.VIEWS), of(made, Kind.BOTH)

    for version in (views, both):
        count, geometry = version.detail.split(" views, ")
        assert RECIPE.views[0] <= int(count) <= RECIPE.views[1]
        assert geometry in ("parallel", "fan")
        assert version.known.streaks > 0
    assert views.known.inserted < 0.1 < both.known.inserted


def test_a_child_has_the_noise_of_the_adult_at_each_dose(made):
    """A smaller body with as much noise in its pixels; its label is that noise's."""
    body = [(version.hu > -500).mean() for version in (made[0], *of(made, Kind.CHILD))]
    adult = made[0].known.own

    assert len(set(np.round(body, 3))) > 1  # its field of view fits it: not the adult's picture
    for version, dose in zip(of(made, Kind.CHILD), RECIPE.child_doses, strict=True):
        assert version.dose == dose
        assert version.detail.startswith("scale ")
        noise = math.hypot(version.known.own, version.known.inserted)
        assert noise == pytest.approx(adult / math.sqrt(dose), rel=0.35)
        assert version.noise == pytest.approx(adult / math.sqrt(dose), rel=0.2)


def test_a_slice_without_tissue_has_no_versions(clean, tmp_path):
    """Air tells no noise, and without that no dose."""
    path = tmp_path / "air.png"
    path.write_bytes(imagecodecs.png_encode(np.full((SIZE, SIZE), 24, np.uint16)))

    with pytest.raises(ValueError, match="noise cannot be measured"):
        list(versions(dataclasses.replace(clean, path=path), RECIPE))
