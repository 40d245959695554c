from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfkt_node.iqa import feature_distance
from tfkt_node.iqa.feature_distance import FeatureDistance, fit
from tfkt_node.records import FloatArray

FEATURES = 40
PATIENTS = [f"P{number % 30}" for number in range(240)]
SAME = [1.0] * 240
"""The quality of slices that are all alike in it."""


def cloud(count: int, *, seed: int, width: float = 1.0) -> FloatArray:
    """Vectors that vary along five directions, and a little in all others; some features large."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(5, FEATURES))
    vectors = rng.normal(0, width, (count, 5)) @ mixing + rng.normal(0, 0.1, (count, FEATURES))
    return (vectors * np.geomspace(0.01, 100, FEATURES) + 7).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> FeatureDistance:
    return fit(cloud(240, seed=1), PATIENTS, SAME)


def test_slices_like_those_of_the_fit_are_inside(fitted: FeatureDistance) -> None:
    """New slices of the same kind lie about 1 away; at most one in twenty is refused."""
    new = cloud(1000, seed=2)

    assert np.median(fitted.distance(new)) == pytest.approx(1, abs=0.15)
    assert np.mean(fitted.is_outside(new)) <= 0.05


def test_threshold_keeps_its_share_of_left_out_patients() -> None:
    """A patient unlike the others is judged by a fit without that patient, and weighs as one."""
    vectors = cloud(240, seed=1)
    odd = np.array(PATIENTS) == "P0"
    vectors[odd] += 60 * vectors.std(axis=0)

    found = fit(vectors, PATIENTS, SAME)

    # One of 30 patients is more than is allowed to be outside, so the threshold reaches it.
    assert found.threshold > 10
    many = np.concatenate([vectors, np.repeat(vectors[~odd][:1], 2000, axis=0)])
    assert fit(many, [*PATIENTS, *["P1"] * 2000], [1.0] * 2240).threshold > 5


def test_scope_is_not_quality() -> None:
    """The worst slices vary the most: as many of them are kept as of the others."""
    quality = np.arange(240) % 4
    vectors = cloud(240, seed=1)
    vectors[quality == 0] = cloud(60, seed=2, width=3.0)
    patients = [f"P{number // 4 % 30}" for number in range(240)]

    worst = cloud(400, seed=9, width=3.0)
    assert np.mean(fit(vectors, patients, quality.tolist()).is_outside(worst)) < 0.06
    assert np.mean(fit(vectors, patients, SAME).is_outside(worst)) > 0.08


def test_what_differs_in_any_direction_is_outside(fitted: FeatureDistance) -> None:
    """Too far along a direction of the fit, or a little in one in which nothing varies."""
    along = cloud(50, seed=3, width=6.0)
    aside = np.random.default_rng(3).normal(size=FEATURES)
    aside -= fitted.axes @ (fitted.axes.T @ aside)
    still = aside / np.linalg.norm(aside) * fitted.scale
    beside = (cloud(50, seed=3) + 20 * fitted.rest * still).astype(np.float32)

    assert np.mean(fitted.is_outside(along)) > 0.8
    assert all(fitted.is_outside(beside))


def test_unit_of_a_feature_does_not_matter(fitted: FeatureDistance) -> None:
    """Features are standardised: another unit for one gives the same distances."""
    unit = np.ones(FEATURES, np.float32)
    unit[3] = 1000.0

    other = fit(cloud(240, seed=1) * unit, PATIENTS, SAME)

    new = cloud(20, seed=4)
    assert other.distance(new * unit) == pytest.approx(fitted.distance(new), rel=1e-3)


def test_vector_that_is_no_number_is_outside(fitted: FeatureDistance) -> None:
    """NaN or infinity is never in scope, and costs its own slice only."""
    vectors = cloud(3, seed=5)
    vectors[0, 2], vectors[1, 5] = np.nan, np.inf

    assert fitted.is_outside(vectors) == [True, True, False]


def test_constant_feature_is_harmless() -> None:
    """A feature that is the same in every slice divides nothing by zero."""
    vectors = cloud(240, seed=1)
    vectors[:, 7] = 3.0

    assert np.isfinite(fit(vectors, PATIENTS, SAME).distance(vectors)).all()


def test_saved_distance_is_the_same(fitted: FeatureDistance, tmp_path: Path) -> None:
    """What a bundle carries gives the same numbers, and the same fit the same bytes."""
    for name in ("a", "b"):
        fitted.save(tmp_path / f"{name}.npz")

    read = feature_distance.load(tmp_path / "a.npz")

    new = cloud(20, seed=6)
    assert read.distance(new).tolist() == fitted.distance(new).tolist()
    assert read.is_outside(new) == fitted.is_outside(new)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_wrong_file_is_refused(fitted: FeatureDistance, tmp_path: Path) -> None:
    """Arrays that are missing or do not fit one another are an error, not a wrong distance."""
    path = tmp_path / "scope.npz"
    np.savez(path, mean=fitted.mean)
    with pytest.raises(KeyError, match="scale"):
        feature_distance.load(path)
    np.savez(path, **{name: np.zeros(3) for name in FeatureDistance.__slots__})
    with pytest.raises(ValueError, match="do not fit one another"):
        feature_distance.load(path)


def test_too_few_patients_are_refused() -> None:
    """Patients cannot be left out where there are fewer than ten."""
    with pytest.raises(ValueError, match=r"at least 10 patients: got .* 9 patients"):
        fit(cloud(90, seed=1), [f"P{number % 9}" for number in range(90)], SAME[:90])


def test_unlimited_distance_refuses_only_what_is_no_number() -> None:
    """A network whose training is not known has no slices to be unlike."""
    anything = feature_distance.unlimited(FEATURES)
    odd = np.full((3, FEATURES), 1e6, np.float32)
    odd[1, 0], odd[2, 0] = np.nan, np.inf

    assert [False, True, True] == anything.is_outside(odd)


def test_unlimited_distance_is_kept(tmp_path: Path) -> None:
    """It travels in a bundle as any other does."""
    feature_distance.unlimited(FEATURES).save(tmp_path / "scope.npz")

    again = feature_distance.load(tmp_path / "scope.npz")

    assert not again.is_outside(cloud(1, seed=1) * 1e6)[0]
