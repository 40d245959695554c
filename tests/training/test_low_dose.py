"""Simulated dose obeys the law of dose."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage as ndi

from tfkt_node.training.simulation.low_dose import Kernel, LowDose
from tfkt_node.training.simulation.projector import Geometry
from tfkt_node.training.simulation.tissue import field_noise_hu, noise_hu

SIZE = 256
PIXEL_MM = 1.4


def body(noise: float = 10.0, seed: int = 3) -> np.ndarray:
    """An ellipse of soft tissue with a spine and air around, 320 mm wide, with coarse noise."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    hu = np.where((rows / 80) ** 2 + (columns / 115) ** 2 < 1, 50.0, -1000.0)
    hu[(rows - 45) ** 2 + columns**2 < 12**2] = 600.0
    grain = ndi.gaussian_filter(np.random.default_rng(seed).standard_normal(hu.shape), 0.7)
    inside = hu > -500
    return (hu + inside * grain * noise / grain.std()).astype(np.float32)


@pytest.fixture(scope="module", params=list(Kernel))
def slice_(request):
    return LowDose(body(), pixel_mm=PIXEL_MM, kernel=request.param)


@pytest.mark.parametrize("dose", [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32])
def test_inserted_noise_follows_the_dose(slice_, dose):
    """What is added has the slice's own SD times sqrt((1 - f) / f), within 5 %, and no bias."""
    fields = [slice_.inserted(dose, np.random.default_rng(seed)) for seed in range(2)]
    added = np.mean([field_noise_hu(field, slice_.even) for field in fields])

    expected = slice_.own_noise_hu * np.sqrt((1 - dose) / dose)
    assert added == pytest.approx(expected, rel=0.05)
    assert abs(np.stack(fields)[:, slice_.even].mean()) < 1


def test_noise_of_a_tenth_is_what_a_scan_at_a_tenth_would_have(slice_):
    """Own and inserted noise together: SD of the full dose times sqrt(10), within 7 %."""
    low = slice_.hu + slice_.inserted(1 / 10, np.random.default_rng(1))

    ratio = noise_hu(low, slice_.even) / noise_hu(slice_.hu, slice_.even)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.07)


def test_same_seed_same_slice(slice_):
    """Simulation can be repeated bit for bit; another seed gives other noise."""
    first, again, other = (slice_.inserted(0.25, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_full_dose_changes_nothing(slice_):
    """At dose 1 nothing is added."""
    assert not slice_.inserted(1.0, np.random.default_rng(0)).any()


def test_sharp_kernels_have_finer_noise():
    """The same noise, reconstructed sharper, has more of its power at fine structures."""
    shares = []
    for kernel in Kernel:
        base = LowDose(body(), pixel_mm=PIXEL_MM, kernel=kernel)
        field = base.inserted(0.25, np.random.default_rng(0))
        shares.append(ndi.gaussian_filter(field, 1.5)[base.even].std() / field[base.even].std())

    assert shares == sorted(shares, reverse=True)


def test_electronic_noise_grows_faster_than_the_dose_law(slice_):
    """The detector's own noise adds little at half the dose and much at a thirty-second."""
    ratios = []
    for dose in (1 / 2, 1 / 32):
        quiet, loud = (
            field_noise_hu(slice_.inserted(dose, np.random.default_rng(0), sd), slice_.even)
            for sd in (0.0, 15.0)
        )
        ratios.append(loud / quiet)

    assert 1 <= ratios[0] < 1.1
    assert ratios[1] > 1.2


def test_noise_of_a_wanted_level(slice_):
    """Noise can be asked for by its SD in even tissue, as it is measured."""
    field = slice_.noise_of(33.0, np.random.default_rng(0))

    assert field_noise_hu(field, slice_.even) == pytest.approx(33)


@pytest.mark.parametrize("geometry", Geometry)
def test_fewer_views_make_streaks_not_more_noise(slice_, geometry):
    """Streaks grow as views are left out, and sum to nothing; noise is that of the dose alone."""
    even = slice_.even
    fields = [
        slice_.thinned(views, 1 / 4, np.random.default_rng(2), geometry) for views in (61, 130, 250)
    ]
    sds = [field.streaks[even].std() for field in fields]

    assert sds[0] > 1.3 * sds[1] > 1.69 * sds[2]
    for field in fields:
        assert abs(field.streaks[even].mean()) < 1
        expected = slice_.own_noise_hu * np.sqrt(3)
        assert field_noise_hu(field.noise, even) == pytest.approx(expected, rel=0.1)


def test_full_dose_spread_over_few_views_adds_no_noise(slice_):
    """With all photons in the kept views only streaks come on top."""
    assert not slice_.thinned(90, rng=np.random.default_rng(0)).noise.any()


def test_noise_of_the_slice_is_no_anatomy():
    """Missing views make streaks of edges, and next to none of the noise that the slice has.

    Projected like anatomy, its noise would add another 17 HU here, and be counted twice.
    """
    clean, noisy = (
        LowDose(body(noise), pixel_mm=PIXEL_MM, own_noise_hu=20.0, kernel=Kernel.SHARP)
        for noise in (0.0, 20.0)
    )
    streaks = [base.thinned(60, rng=np.random.default_rng(4)).streaks for base in (clean, noisy)]

    assert (streaks[1] - streaks[0])[clean.even].std() < 8


def test_few_photons_have_the_right_mean(slice_):
    """The logarithm of a handful of photons is not brighter than that of many."""
    dark = np.log(slice_.photons / 6) - slice_.bowtie + np.zeros_like(slice_.lines)

    error = slice_.ray_noise(1.0, np.random.default_rng(0), lines=dark)

    assert abs(error.mean()) < 0.01
    assert error.std() == pytest.approx(6**-0.5, rel=0.1)


def test_fans_draw_other_streaks_than_parallel_views(slice_):
    """The two geometries with the same views and phase differ in more than strength."""
    parallel, fan = (
        slice_.thinned(91, rng=np.random.default_rng(3), geometry=geometry).streaks[slice_.even]
        for geometry in Geometry
    )

    assert abs(np.corrcoef(parallel, fan)[0, 1]) < 0.5


def test_noise_free_phantom_needs_its_noise_told():
    """A phantom has no noise of its own: the full dose's is given, and is what a scan shows."""
    phantom = body(noise=0)
    with pytest.raises(ValueError, match="own_noise_hu"):
        LowDose(np.full((SIZE, SIZE), 50, np.float32))

    base = LowDose(phantom, pixel_mm=PIXEL_MM, own_noise_hu=12.0)
    scan = base.scan_noise(1.0, np.random.default_rng(0))

    assert field_noise_hu(scan, base.even) == pytest.approx(12, rel=0.05)


@pytest.mark.parametrize("dose", [0, -0.1, 1.5, float("nan")])
def test_impossible_doses_are_refused(slice_, dose):
    """A dose fraction lies in (0, 1]."""
    with pytest.raises(ValueError, match="dose fraction"):
        slice_.inserted(dose, np.random.default_rng(0))


def test_simulation_needs_no_torch():
    """The demonstration simulates with numpy and scipy alone: no extra is needed."""
    check = (
        "import sys, tfkt_node.training.simulation.low_dose;"
        "print(sorted({'torch', 'skimage', 'openvino'} & set(sys.modules)))"
    )

    said = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    ).stdout

    assert said.strip() == "[]"


def test_slices_that_are_not_square_are_refused():
    """The projector needs a square slice."""
    with pytest.raises(ValueError, match="square"):
        LowDose(np.zeros((256, 200), np.float32))
