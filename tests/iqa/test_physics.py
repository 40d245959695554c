from __future__ import annotations

import csv
import math
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tfkt_node.iqa.physics import measure, noise_hu, water_equivalent_diameter_mm
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


@pytest.mark.parametrize("sigma", [5, 12, 30, 80])
def test_noise_of_known_level_is_measured(sigma: float) -> None:
    """White noise of a given SD comes back as that SD, and as fine noise."""
    hu = muscle(white(sigma))

    noise, ratio = noise_hu(hu, find_body(hu), SPACING)

    assert noise == pytest.approx(sigma, rel=0.06)
    assert ratio == pytest.approx(0.19, abs=0.03)


def test_smooth_noise_is_coarser_at_the_same_level() -> None:
    """The ratio tells a smooth kernel from a sharp one where the SD does not."""
    smooth = ndimage.gaussian_filter(white(1), 1)
    hu = muscle(smooth * 15 / smooth.std())

    noise, ratio = noise_hu(hu, find_body(hu), SPACING)

    assert noise == pytest.approx(15, rel=0.25)
    assert ratio is not None
    assert ratio > 0.4


def test_noise_agrees_with_a_plain_filter_of_local_deviations() -> None:
    """Second opinion: SD by scipy's generic filter in the middle of the disc."""
    hu = muscle(white(20))
    middle = hu[200:312, 200:312].astype(float)
    plain = np.median(ndimage.generic_filter(middle, np.std, size=8)[8:-8, 8:-8])

    noise, _ = noise_hu(hu, find_body(hu), SPACING)

    assert noise == pytest.approx(plain, rel=0.05)


def test_too_little_soft_tissue_gives_no_noise() -> None:
    """A mode of a few windows is not a number worth giving."""
    hu = muscle(white(10), radius_mm=20)

    assert noise_hu(hu, find_body(hu), SPACING) == (None, None)


@pytest.mark.parametrize("radius_mm", [60, 100, 150])
def test_disc_of_water_has_its_own_diameter(radius_mm: float) -> None:
    """Water attenuates like water: D_w is the diameter."""
    hu = muscle(-50.0, radius_mm=radius_mm)
    hu[hu < -500] = -1000

    found = water_equivalent_diameter_mm(find_body(hu), SPACING)

    assert found == pytest.approx(2 * radius_mm, rel=0.015)


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


def test_nothing_is_measured_without_spacing_or_body() -> None:
    """No number is made up where its unit is not known, or nobody is there."""
    hu = muscle(white(10))
    air = np.full((512, 512), -1000, dtype=np.float32)

    assert set(measure(hu, find_body(hu), None).values()) == {None}
    assert set(measure(air, find_body(air), SPACING).values()) == {None}
    assert measure(hu, find_body(hu), None).keys() == measure(hu, find_body(hu), SPACING).keys()


@pytest.mark.station
def test_noise_agrees_with_the_index_of_real_slices(shared_data: Path) -> None:
    """An independent measurement of 141 slices agrees within 10 % for nine in ten."""
    folder = shared_data / "ct-clean"
    with (folder / "index.csv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index))

    ratios = []
    for row in rows:
        with Image.open(folder / row["file"]) as image:
            hu = np.asarray(image).astype(np.float32) - 1024
        noise, _ = noise_hu(hu, find_body(hu), (float(row["pixel_mm"]),) * 2)
        if noise is not None:
            ratios.append(noise / float(row["noise_hu"]))

    assert len(ratios) >= 0.95 * len(rows)
    assert np.median(ratios) == pytest.approx(1, abs=0.03)
    assert np.mean(np.abs(np.array(ratios) - 1) < 0.15) > 0.9


@pytest.mark.station
def test_scope_and_physics_take_milliseconds() -> None:
    """All that is not the network stays far under its share of a slice: 20 ms of CPU, at most."""
    hu = muscle(white(15))
    started = time.process_time()
    for _ in range(20):
        measure(hu, find_body(hu), SPACING)

    assert (time.process_time() - started) / 20 < 0.02
