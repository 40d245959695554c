"""The projector is exact, and both of its ways belong together."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.training.projector import ParallelBeam

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
