"""A model is ahead of a rival by what the same patients say of both."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.rows import row
from tfkt_node.training.judging.comparison import agreement, gains

ROWS = [
    row(
        patient=f"p{patient}",
        file=f"p{patient}.png",
        kind=kind,
        region="pelvis" if patient < 5 else "chest",
        u=float(patient % 4 + step),
    )
    for patient in range(14)
    for step, kind in enumerate(("clean", "dose", "dose", "smoothed"))
]
LABELS = np.array([one.u for one in ROWS])


def test_a_perfect_model_is_ahead_of_a_blind_rival_by_its_whole_correlation():
    """The model is the label, the rival its opposite: 1 against -1, in every draw."""
    found = {one.subset: one for one in gains(ROWS, LABELS, {"blind": -LABELS}, seed=0)}

    everything = found["all"]
    assert (everything.rival_srocc, everything.gain) == pytest.approx((-1, 2))
    assert (everything.low, everything.high) == pytest.approx((2, 2))
    assert list(found) == ["all", "noise", "smoothed", "chest", "abdomen and pelvis"]


def test_equal_models_differ_by_nothing_however_few_the_patients_are():
    """The bootstrap is paired: where two say the same, no draw can tell them apart."""
    said = LABELS + np.random.default_rng(0).normal(size=len(LABELS))

    for one in gains(ROWS, said, {"same": said}, seed=0):
        assert one.gain == 0
        if one.subset != "abdomen and pelvis":
            assert one.low == one.high == 0


def test_no_interval_is_claimed_below_eight_patients():
    """Five patients of abdomen and pelvis give a difference, and no bounds."""
    found = {one.subset: one for one in gains(ROWS, LABELS, {"blind": -LABELS}, seed=0)}

    few = found["abdomen and pelvis"]
    assert few.gain == pytest.approx(2)
    assert np.isnan([few.low, few.high]).all()


def test_agreement_is_counted_in_each_subset():
    """A model that says the label turned round is wrong by twice each label."""
    found = {one.subset: one for one in agreement(ROWS, -LABELS)}

    noise = found["noise"]
    assert (noise.patients, noise.versions) == (14, 28)
    assert (noise.srocc, noise.plcc) == pytest.approx((-1, -1))
    at = [one.kind == "dose" for one in ROWS]
    assert noise.mae_u == pytest.approx(2 * LABELS[at].mean())


def test_error_of_the_score_is_that_after_the_squash():
    """Two points of u are no error where both score 4."""
    rows = [row(patient=str(i), u=6.0 + i) for i in range(3)]

    found = agreement(rows, np.array([8.0, 9, 10]))[0]

    assert found.mae_u == 2
    assert found.mae_score < 0.01
