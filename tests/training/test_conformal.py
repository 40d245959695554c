"""An interval holds what it says it holds, and patients, not slices, are its evidence."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tests.training.rows import row
from tfkt_node.training.judging.conformal import (
    QUANTILES,
    Errors,
    calibrate,
    coverage_of,
    flags,
    interval,
    quantiles,
    series_errors,
    slice_errors,
)


def errors(error: np.ndarray, given: float = 2.0, patients: list[str] | None = None) -> Errors:
    count = len(error)
    return Errors(
        np.asarray(error, float),
        np.full(count, given),
        np.array(patients or [f"p{i:03}" for i in range(count)]),
        np.arange(count) % 5,
        np.where(np.arange(count) % 2, "chest", "abdomen"),
    )


def test_interval_leaves_out_the_outermost_of_each_side():
    """Of 39 patients, 90 %: the 2nd smallest and largest are the ends."""
    found = interval(errors(np.arange(-19, 20) / 10), 0.9, seed=0)

    assert found == pytest.approx((1.8, 1.8))


def test_interval_follows_a_model_that_says_too_much():
    """A bias moves both ends; neither end crosses the score."""
    assert interval(errors(np.arange(-40, -1) / 10), 0.9, seed=0) == pytest.approx((3.9, 0))


def test_patient_with_many_slices_counts_once():
    """Five hundred slices of one patient change nothing."""
    one_each = np.arange(-19, 20) / 10
    many = errors(
        np.concatenate([one_each, np.full(500, one_each[0])]),
        patients=[f"p{i:03}" for i in range(39)] + ["p000"] * 500,
    )

    assert interval(many, 0.9, seed=0) == pytest.approx((1.8, 1.8))


def test_too_few_patients_give_no_interval():
    """Nineteen patients are needed for both sides of 90 %: with eighteen it is the whole scale."""
    assert interval(errors(np.zeros(19)), 0.9, seed=0) == (0, 0)
    assert interval(errors(np.zeros(18)), 0.9, seed=0) == (4, 4)


def test_errors_are_of_scores():
    """True less given, after the squash."""
    rows = [row(u=3.0, patient="a"), row(u=7.0, patient="b")]

    found = slice_errors(rows, np.array([2.5, 8.0]))

    assert found.error == pytest.approx([0.5, 0], abs=0.01)
    assert found.patient.tolist() == ["a", "b"]


def test_series_is_the_mean_of_what_one_scan_could_be():
    """Errors average out within a patient's versions of one dose; those of doses do not.

    Each slice has its own share of a step of dose: 0.45 and 0.6 are both about a half.
    """
    rows = [
        row(u=2.0, kind="dose", dose=0.45),
        row(u=2.0, kind="dose", dose=0.6),
        row(u=2.0, kind="dose", dose=0.25),
        row(u=2.0, kind="clean", dose=1.0),
        row(u=2.0, kind="dose", dose=0.5, patient="b", fold=3, region="abdomen"),
    ]

    found = series_errors(rows, np.array([1.0, 3, 1, 3, 1.5]))

    series = sorted(zip(found.patient, found.fold, found.error, found.given, strict=True))
    assert [(name, fold) for name, fold, *_ in series] == [("a", 0)] * 3 + [("b", 3)]
    assert [error for *_, error, _ in series] == pytest.approx([-1, 0, 1, 0.5])
    assert [given for *_, given in series] == pytest.approx([3, 2, 1, 1.5])


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("gaussian 0.71, share 1.00", "gaussian 1.32, share 0.40", True),
        ("gaussian 0.71, share 1.00", "median 0.71, share 1.00", False),
        ("metal", "motion", False),
        ("100 views, fan", "130 views, fan", True),
        ("100 views, fan", "100 views, parallel", False),
        ("100 views, fan", "300 views, fan", False),
        ("scale 0.51", "scale 0.62", True),
    ],
)
def test_filters_artefacts_and_views_are_apart(one, other, alike):
    """A series has one filter, one artefact, one geometry, and about one number of views."""
    rows = [row(u=2.0, detail=one), row(u=2.0, detail=other)]

    found = series_errors(rows, np.array([1.0, 3.0]))

    assert sorted(found.error) == pytest.approx([0.0] if alike else [-1.0, 1.0])


def test_images_that_readers_scored_are_no_series():
    """Each has damage of its own, and no dose that anyone knows."""
    readers = {"kind": "readers", "dose": float("nan"), "u": 2.0}
    rows = [row(detail="1.tif, readers: 2", **readers), row(detail="2.tif, readers: 2", **readers)]

    found = series_errors(rows, np.array([1.0, 3.0]))

    assert sorted(found.error) == pytest.approx([-1, 1])


def test_quantiles_are_of_scores_about_the_thresholds():
    """The ends of the scale, where errors cannot be large, do not make the others look small."""
    middle, top = errors(np.linspace(-1, 1, 101)), errors(np.zeros(300), given=3.9)
    both = Errors(
        *(np.concatenate([getattr(middle, n), getattr(top, n)]) for n in Errors.__slots__)
    )

    found = quantiles(both, seed=0)

    assert len(found) == QUANTILES
    assert found == pytest.approx(np.linspace(-1, 1, QUANTILES), abs=0.01)
    assert quantiles(top, seed=0) == ()


def test_coverage_is_tried_on_folds_that_set_nothing():
    """About nine of ten are inside, by region too; a fold that is worse than all others is seen."""
    rng = np.random.default_rng(0)
    even = errors(rng.normal(size=200) / 2)

    found = coverage_of(even, 0.9, seed=0)

    assert set(found) == {"all", "chest", "abdomen", "scores 1 to 3.5"}
    assert found["all"].share == pytest.approx(0.9, abs=0.04)
    assert found["all"].low < found["all"].share < found["all"].high
    assert found["chest"].patients == 100

    one_fold_off = errors(np.where(np.arange(200) % 5 == 0, 3.0, even.error))
    assert coverage_of(one_fold_off, 0.9, seed=0)["all"].share < 0.8


def test_no_bounds_are_claimed_below_eight_patients():
    """Seven patients have a share, and no interval of it."""
    found = coverage_of(errors(np.zeros(7)), 0.9, seed=0)["all"]

    assert (found.patients, found.share) == (7, 1)
    assert np.isnan([found.low, found.high]).all()


def test_flags_are_unsure_near_the_threshold_only():
    """Errors of up to 0.4: at 2.4 a coin's toss is right half the time, at 2.9 always."""
    error = np.tile(np.linspace(-0.4, 0.4, 41), 2)
    given = np.repeat([2.5, 3.2], 41)
    some = errors(error)
    near = Errors(some.error, given, some.patient, some.fold, some.region)

    found = flags(near, threshold=2.5, seed=0)

    assert found.unsure == pytest.approx(0.5)
    assert found.right_where_sure == 1
    assert found.right_where_unsure == pytest.approx(0.5, abs=0.05)


def test_calibration_keeps_interval_and_errors():
    """The same seed gives the same constants."""
    rows = [row(u=2.0, patient=f"p{i}", fold=i % 5) for i in range(39)]
    u = np.linspace(1, 3, 39)

    found = calibrate(rows, u, 0.9, seed=0, shift=0.0)

    assert found == calibrate(rows, u, 0.9, seed=0, shift=0.0)
    assert (found.slope, found.shift, found.coverage) == (1, 0, 0.9)
    assert (found.below, found.above) == pytest.approx((0.9474, 0.9474))
    assert found.series == (found.below, found.above)
    assert (found.errors[0], found.errors[-1]) == (-1, 1)


def test_interval_of_a_series_comes_from_the_errors_of_series():
    """Errors that a patient's slices do not share average out: a series is known better."""
    rows = [row(u=2.0, patient=f"p{i}", fold=i % 5) for i in range(39) for _ in range(4)]
    u = np.tile([1.0, 3.0, 1.5, 2.5], 39)

    found = calibrate(rows, u, 0.9, seed=0, shift=0.0)

    assert (found.below, found.above) == pytest.approx((1, 1))
    assert found.series == pytest.approx((0, 0))


@pytest.mark.station
def test_published_errors_give_the_published_interval(shared_data):
    """296 scores of the released network: +-0.67 as published, shorter where sides are apart."""
    with (shared_data / "anchors" / "published_pairs.csv").open() as file:
        pairs = np.array([[float(v) for v in line.values()] for line in csv.DictReader(file)])
    error = pairs[:, 0] - pairs[:, 1]

    below, above = interval(errors(error), 0.9, seed=0)

    assert below + above < 2 * 0.666
    assert below > above + 0.3  # it says too much
    assert coverage_of(errors(error), 0.9, seed=0)["all"].share == pytest.approx(0.9, abs=0.02)
