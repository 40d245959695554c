"""The projector is exact, and both of its ways belong together."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.training.simulation.projector import SOURCE_MM, Geometry, ParallelBeam

SIZE = 128


@pytest.fixture(scope="module")
def beam():
    return ParallelBeam(SIZE, views=180)


@pytest.fixture(scope="module")
def disc():
    """A disc of radius 40 pixels off the centre, its edge softened by sampling 8 x 8."""
    fine = (np.arange(SIZE * 8) + 0.5) / 8 - SIZE / 2 - 0.5
    inside = (fine[None] - 7) ** 2 + (fine[:, None] + 5) ** 2 < 40**2
    return inside.reshape(SIZE, 8, SIZE, 8).mean((1, 3)).astype(np.float32)


def test_projection_is_the_chord(beam, disc):
    """Line sums of a disc are the lengths of its chords, within 1 %, at every angle."""
    lines = beam.project(disc)

    for view in (0, 33, 90, 151):
        angle = np.pi * view / 180
        centre = 7 * np.cos(angle) - 5 * np.sin(angle)
        offset = np.arange(-SIZE, SIZE) - centre
        near = np.abs(offset) < 30
        expected = 2 * np.sqrt(40**2 - offset[near] ** 2)
        assert lines[view, near] == pytest.approx(expected, rel=0.015)
        assert lines[view, near].mean() == pytest.approx(expected.mean(), rel=0.005)


def test_back_projection_brings_the_slice_back(beam, disc):
    """Reconstruction without a kernel returns the values that were projected, not 7 % less."""
    again = beam.back_project(beam.project(disc), np.ones(SIZE + 1))

    inner = disc == disc.max()
    assert again[inner].mean() == pytest.approx(1, abs=0.003)
    assert again[:20, :20].mean() == pytest.approx(0, abs=0.003)


def test_both_ways_are_one_pair(beam):
    """<filter A x, y> = <x, B y>: back-projection is the transpose, so noise is not coloured."""
    rng = np.random.default_rng(5)
    image = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    lines = rng.standard_normal((180, 2 * SIZE)).astype(np.float32)
    ramp = beam.back_project  # with the ramp inside
    weight = np.exp(-((beam.frequencies() / 0.2) ** 2))

    spectrum = np.fft.rfft(beam.project(image), axis=1) * beam._ramp * weight
    filtered = np.fft.irfft(spectrum, axis=1)
    left = float(np.vdot(filtered, lines)) * np.pi / 180
    right = float(np.vdot(image, ramp(lines, weight)))

    assert right == pytest.approx(left, rel=1e-3)


@pytest.mark.parametrize("geometry", Geometry)
@pytest.mark.parametrize("views", [60, 37, 90])
def test_kept_rays_count_for_those_left_out(beam, geometry, views):
    """At every distance from the centre the weights are 1 on average, whatever the number."""
    for phase in (0.0, 0.3):
        kept = beam.kept_rays(views, geometry, phase=phase, pixel_mm=2.0)

        per_side = np.broadcast_to(kept.mean(axis=0), (2 * SIZE,))[1:]
        assert per_side + per_side[::-1] == pytest.approx(2, rel=1e-5)
        assert (kept > 0).mean() == pytest.approx(2 * views / beam.views, rel=0.5)


def test_rays_of_a_fan_meet_at_their_source(beam):
    """Every ray kept in a fan passes one of the sources, and every ray past a source is kept."""
    views, pixel_mm, phase = 7, 2.0, 0.4
    kept = beam.kept_rays(views, Geometry.FAN, phase=phase, pixel_mm=pixel_mm) > 0

    # A view at angle t looks along t + 90 degrees: there the source of its central ray lies.
    source = 2 * np.pi * (np.arange(views) + phase) / views + np.pi / 2
    normal = np.pi * np.arange(beam.views) / beam.views
    distance = np.arange(-SIZE, SIZE) * pixel_mm
    passes = SOURCE_MM * np.cos(normal[:, None] - source)[..., None] - distance
    nearest = np.abs(passes).min(axis=1)
    # One step of angle moves a ray by less than this at the source.
    step_mm = SOURCE_MM * np.pi / beam.views
    assert nearest[kept].max() < step_mm
    assert kept[nearest < 0.8 * step_mm].all()


def test_weights_apply_to_filtered_rays(beam, disc):
    """Rays beside a place do not count for it, once filtered; without them it is the same."""
    sums, kernel = beam.project(disc), np.ones(SIZE + 1)
    angle = np.pi * np.arange(beam.views)[:, None] / beam.views
    beside = np.arange(-SIZE, SIZE) - (7 * np.cos(angle) - 5 * np.sin(angle))

    whole = beam.back_project(sums, kernel)
    seen = beam.back_project(sums, kernel, (np.abs(beside) < 30).astype(np.float32))

    rows, columns = np.indices(disc.shape) - SIZE // 2
    distance = np.hypot(columns - 7, rows + 5)
    assert seen[distance < 25] == pytest.approx(whole[distance < 25], abs=0.02)
    assert seen[(distance > 32) & (distance < 38)].mean() < 0.8


@pytest.mark.parametrize("views", [0, 91])
def test_more_views_than_half_cannot_be_kept(beam, views):
    """Kept views must lie at least two steps apart."""
    with pytest.raises(ValueError, match=r"1\.\.90"):
        beam.kept_rays(views, Geometry.PARALLEL, phase=0.0, pixel_mm=1.0)
