from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.iqa.test_scope import header
from tfkt_node.iqa.physics import (
    contradict,
    measure,
    noise_fine_to_coarse,
    noise_hu,
    ssde_mgy,
    streak_index,
    water_equivalent_diameter_mm,
)
from tfkt_node.iqa.scope import find_body
from tfkt_node.records import FloatArray

SPACING = (0.7, 0.7)


def muscle(noise: FloatArray | float, *, radius_mm: float = 120) -> FloatArray:
    """A disc of 50 HU in air, with noise."""
    y, x = np.mgrid[:512, :512] - 255.5
    disc = np.where(np.hypot(y, x) * SPACING[0] < radius_mm, 50.0, -1000.0)
    return (disc + noise).astype(np.float32)


def white(sigma: float, seed: int = 1) -> FloatArray:
    return np.random.default_rng(seed).normal(0, sigma, (512, 512)).astype(np.float32)


def coarse(sigma: float, width_px: float) -> FloatArray:
    """Noise as a softer kernel leaves it."""
    smooth = ndimage.gaussian_filter(white(1), width_px)
    return (smooth * sigma / smooth.std()).astype(np.float32)


# --------------------------------------------------------------------------- noise


@pytest.mark.parametrize("sigma", [5, 12, 30, 80, 200, 500])
@pytest.mark.parametrize("radius_mm", [70, 120, 160])
def test_noise_of_known_level_is_measured(sigma: float, radius_mm: float) -> None:
    """White noise of a given SD comes back as that SD within 5 %, in small and large bodies."""
    for seed in range(3):
        hu = muscle(white(sigma, seed), radius_mm=radius_mm)

        assert noise_hu(find_body(hu), SPACING) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("size", [256, 768, 1024])
def test_noise_does_not_depend_on_the_matrix(size: int) -> None:
    """The same pixels in a smaller or larger matrix have the same noise, and grain."""
    hu = muscle(white(20))
    cut = hu[128:384, 128:384] if size == 256 else np.pad(hu, (size - 512) // 2, mode="reflect")
    body = find_body(cut)

    assert noise_hu(body, SPACING) == pytest.approx(20, rel=0.05)
    assert noise_fine_to_coarse(cut, body, SPACING) == pytest.approx(1, abs=0.05)


def test_noise_agrees_with_a_plain_filter_of_local_deviations() -> None:
    """Second opinion: SD by scipy's generic filter in the middle of the disc."""
    hu = muscle(white(20))
    middle = hu[200:312, 200:312].astype(float)
    plain = np.median(ndimage.generic_filter(middle, np.std, size=8)[8:-8, 8:-8])

    assert noise_hu(find_body(hu), SPACING) == pytest.approx(plain, rel=0.05)


def test_too_little_soft_tissue_gives_no_noise() -> None:
    """A mode of a few windows is not a number worth giving."""
    hu = muscle(white(10), radius_mm=20)
    body = find_body(hu)

    assert noise_hu(body, SPACING) is None
    assert noise_fine_to_coarse(hu, body, SPACING) is None


def test_coarser_noise_has_a_lower_ratio_at_any_level() -> None:
    """1 for white noise; a soft kernel, then smoothing, take the fine part away first."""

    def ratio(noise: FloatArray) -> float:
        hu = muscle(noise)
        found = noise_fine_to_coarse(hu, find_body(hu), SPACING)
        assert found is not None
        return found

    ratios = [ratio(white(15)), *(ratio(coarse(15, width)) for width in (0.5, 0.8, 1.2, 2))]

    assert ratios[0] == pytest.approx(1, abs=0.03)
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] < 0.35
    assert ratio(white(60)) == pytest.approx(ratios[0], abs=0.03)


def test_small_field_of_view_does_not_make_noise_look_smoothed() -> None:
    """The grain of a soft kernel is told alike in pixels of 0.7 mm and of 0.35 mm, as a child's."""
    large, small = muscle(coarse(15, 0.8)), muscle(coarse(15, 1.6))
    half = (SPACING[0] / 2, SPACING[1] / 2)

    ratios = [
        noise_fine_to_coarse(large, find_body(large), SPACING),
        noise_fine_to_coarse(small, find_body(small), half),
    ]

    assert ratios[0] == pytest.approx(ratios[1], abs=0.1)
    assert noise_fine_to_coarse(small, find_body(small), SPACING) < 0.3 < min(ratios)


def test_flat_image_has_no_noise_to_tell_the_grain_of() -> None:
    """A noise-free phantom divides nothing by zero."""
    hu = muscle(0.0)

    assert noise_fine_to_coarse(hu, find_body(hu), SPACING) is None


# --------------------------------------------------------------------------- streaks


def test_streaks_that_reach_into_the_air_raise_the_index() -> None:
    """Noise of photons is strongest inside; lines through everything are as strong in the air."""
    y, x = np.mgrid[:512, :512] - 255.5
    inside = np.exp(-np.square(np.hypot(y, x) / 200))
    quiet = muscle(white(20) * inside)
    lines = 30 * np.sign(np.sin(np.arctan2(y, x) * 240)) + white(20) * inside
    streaked = muscle(lines)

    def index(hu: FloatArray) -> float | None:
        body = find_body(hu)
        noise = noise_hu(body, SPACING)
        assert noise is not None
        return streak_index(body, noise, SPACING)

    low, high = index(quiet), index(streaked)
    assert low is not None
    assert high is not None
    assert low < 0.6
    assert high > 0.8


@pytest.mark.parametrize("size", [256, 768])
def test_streak_index_does_not_depend_on_the_matrix(size: int) -> None:
    """The same air and tissue in a smaller or larger matrix have the same index."""

    def index(hu: FloatArray) -> float:
        body = find_body(hu)
        found = streak_index(body, noise_hu(body, SPACING), SPACING)
        assert found is not None
        return found

    hu = muscle(coarse(20, 2), radius_mm=50)
    cut = hu[128:384, 128:384] if size == 256 else np.pad(hu, 128, mode="reflect")

    assert index(cut) == pytest.approx(index(hu), rel=0.1)


def test_no_streaks_are_told_without_air() -> None:
    """A body that fills the field of view, or air of one value, gives no index."""
    full = muscle(white(20), radius_mm=400)
    masked = muscle(white(20))
    masked[masked < -500] = -1000

    for hu in (full, masked):
        assert streak_index(find_body(hu), 20.0, SPACING) is None


# --------------------------------------------------------------------------- size and dose


@pytest.mark.parametrize("radius_mm", [60, 100, 150])
@pytest.mark.parametrize("noise", [0, 15, 60])
def test_disc_of_water_has_its_own_diameter(radius_mm: float, noise: float) -> None:
    """Water attenuates like water: D_w is the diameter, within 2 %."""
    hu = muscle(-50.0 + white(noise), radius_mm=radius_mm)

    found = water_equivalent_diameter_mm(find_body(hu), SPACING)

    assert found == pytest.approx(2 * radius_mm, rel=0.02)


def test_lung_counts_as_the_little_water_it_is() -> None:
    """D_w follows AAPM 220 summed pixel by pixel over the same body."""
    hu = muscle(white(15))
    y, x = np.mgrid[:512, :512] - 255.5
    hu[np.hypot(y, x) * SPACING[0] < 60] = -850
    body = find_body(hu)
    inside = np.kron(body.mask, np.ones((body.block, body.block), dtype=bool))
    water_mm2 = float((hu[inside].astype(float) / 1000 + 1).sum()) * SPACING[0] * SPACING[1]

    found = water_equivalent_diameter_mm(body, SPACING)

    assert found == pytest.approx(2 * math.sqrt(water_mm2 / math.pi), rel=1e-4)


@pytest.mark.parametrize(
    ("half_mm", "wall_mm", "arm_mm"),
    [((150, 110), 8, 0), ((150, 110), 5, 0), ((120, 90), 8, 35), ((120, 90), 60, 30)],
)
def test_thin_chest_wall_and_arms_beside_it_belong_to_the_body(
    half_mm: tuple[float, float], wall_mm: float, arm_mm: float
) -> None:
    """A lung behind a wall of two cells counts, and both arms; a hollow couch top does not."""
    y, x = (np.mgrid[:512, :512] - 255.5) * SPACING[0]
    wide, high = half_mm
    hu = np.where(np.hypot(x / wide, y / high) < 1, 40.0, -1000.0)
    lung = np.hypot(x / (wide - wall_mm), y / (high - wall_mm)) < 1
    hu[lung & (np.abs(x) > 35)] = -850
    for side in (-1, 1):
        hu[np.hypot(x - side * (wide + arm_mm + 4), y - 20) < arm_mm] = 40
    water_mm2 = float((hu / 1000 + 1).sum()) * SPACING[0] ** 2
    couch = np.hypot(x / 165, (y - high - 18) / 15)
    hu[(couch < 1) & (hu == -1000)] = -200
    hu[couch < 0.8] = -900

    found = water_equivalent_diameter_mm(find_body((hu + white(20)).astype(np.float32)), SPACING)

    assert found == pytest.approx(2 * math.sqrt(water_mm2 / math.pi), rel=0.02)


@pytest.mark.parametrize(
    ("phantom_mm", "diameter_mm", "factor"),
    [
        (320, 100, 2.57),
        (320, 200, 1.78),
        (320, 300, 1.23),
        (320, 400, 0.85),
        (160, 100, 1.27),
        (160, 250, 0.71),
    ],
)
def test_size_specific_dose_follows_the_published_table(
    phantom_mm: float, diameter_mm: float, factor: float
) -> None:
    """Conversion factors of AAPM 204, tables 1D and 2D, as printed there."""
    found = ssde_mgy(10.0, phantom_mm, diameter_mm)

    assert found == pytest.approx(10 * factor, abs=0.06)


@pytest.mark.parametrize(
    ("dose", "phantom_mm", "diameter_mm"),
    [(None, 320, 250), (10, None, 250), (10, 240, 250), (10, 320, None), (10, 320, 500)],
)
def test_size_specific_dose_is_never_guessed(
    dose: float | None, phantom_mm: float | None, diameter_mm: float | None
) -> None:
    """An unknown phantom would be a factor of 2; sizes beyond the fit have no factor."""
    assert ssde_mgy(dose, phantom_mm, diameter_mm) is None


# --------------------------------------------------------------------------- all together


def test_every_slice_has_the_same_names_and_no_number_is_made_up() -> None:
    """Without spacing, or a body, nothing is measured; the dose of the header stays."""
    hu = muscle(white(10))
    air = np.full((512, 512), -1000, dtype=np.float32)
    where = replace(header(), ctdi_vol_mgy=5.0, ctdi_phantom_mm=320.0)
    unknown = replace(where, pixel_spacing_mm=None)

    measured = measure(hu, find_body(hu), where)
    for nothing in (measure(hu, find_body(hu), unknown), measure(air, find_body(air), where)):
        assert nothing.keys() == measured.keys()
        assert {name for name, value in nothing.items() if value is not None} == {"ctdi_vol_mgy"}
    assert None not in measured.values()
    assert measured["ssde_mgy"] == pytest.approx(
        5 * 3.704369 * math.exp(-0.3671937 * 2.4 * 1.025), rel=0.02
    )


def measures(hu: FloatArray) -> dict[str, float | None]:
    return measure(hu, find_body(hu), header())


@pytest.mark.parametrize(("score", "is_found"), [(4.0, True), (2.9, False), (0.5, False)])
def test_score_that_the_noise_does_not_allow_is_found(score: float, is_found: bool) -> None:
    """Noise of 68 HU is worth 1 point: a score two points above it is not believed."""
    assert contradict(score, measures(muscle(white(68)))) is is_found


def test_score_that_the_noise_does_not_explain_is_found() -> None:
    """Noise of 20 HU is worth 4 points: a score of 1 has another cause, such as smoothing."""
    quiet = measures(muscle(coarse(20, 0.5)))

    assert [contradict(score, quiet) for score in (1.0, 2.1, 4.0)] == [True, False, False]


def test_smoothing_that_buys_a_score_is_found() -> None:
    """Noise of 60 HU smoothed down to a few has the level of a good scan, but not its grain."""
    noisy = muscle(white(60))
    smoothed = ndimage.gaussian_filter(noisy, 1.6).astype(np.float32)
    standard = muscle(coarse(12, 0.7))
    bought = measures(smoothed)

    assert bought["noise_hu"] is not None
    assert bought["noise_hu"] < 15
    assert contradict(3.8, bought)
    assert not contradict(3.8, measures(standard))


def test_nothing_is_found_where_noise_cannot_be_measured() -> None:
    """Too little soft tissue contradicts no score."""
    assert not contradict(4.0, measures(muscle(white(60), radius_mm=20)))
    assert not contradict(0.0, {})


# --------------------------------------------------------------------------- real slices


@pytest.mark.station
def test_real_slices_agree_with_their_index_and_with_good_scores(shared_data: Path) -> None:
    """141 clean slices: noise as measured by others, within 15 % for nine in ten; no finding."""
    folder = shared_data / "ct-clean"
    with (folder / "index.csv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index))

    ratios, findings = [], []
    for row in rows:
        with Image.open(folder / row["file"]) as image:
            hu = np.asarray(image).astype(np.float32) - 1024
        where = replace(header(), pixel_spacing_mm=(float(row["pixel_mm"]),) * 2)
        found = measure(hu, find_body(hu), where)
        if found["noise_hu"] is not None:
            ratios.append(found["noise_hu"] / float(row["noise_hu"]))
        findings.append(contradict(3.0, found))

    assert len(ratios) >= 0.95 * len(rows)
    assert np.median(ratios) == pytest.approx(1, abs=0.03)
    assert np.mean(np.abs(np.array(ratios) - 1) < 0.15) > 0.9
    assert np.mean(findings) <= 0.05
