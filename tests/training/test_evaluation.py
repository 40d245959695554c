"""The figures of a card are the same each time, and there is one of each name."""

from __future__ import annotations

import numpy as np

from tests.training.rows import row
from tfkt_node.training.judging.evaluation import TRAIN, CrossValidated, cross_validated_figures

KINDS = (
    ("clean", 1.0),
    ("dose", 0.5),
    ("dose", 0.25),
    ("smoothed", 0.25),
    ("child", 0.25),
)


def found() -> CrossValidated:
    """Twelve patients whose versions the model puts right, but for a shift of 0.2."""
    rows = [
        row(
            patient=f"p{patient}",
            file=f"p{patient}.png",
            fold=patient % 5,
            region="abdomen" if patient % 3 else "chest",
            kind=kind,
            dose=dose,
            u=3 + patient / 10 + np.log2(dose),
        )
        for patient in range(12)
        for kind, dose in KINDS
    ]
    labels = np.array([one.u for one in rows])
    said = labels + 0.2
    return CrossValidated(
        rows, said, np.stack([said, -said]), said - 0.1, {"noise formula": -labels}, labels
    )


def test_figures_say_what_is_known_of_the_rows():
    """A perfect order, a shift of 0.2 and a rival that is wrong about everything."""
    figures = {one.name: one.value for one in cross_validated_figures(found(), 0.9, seed=0)}

    assert figures["all: SROCC"] == 1
    assert figures["all: MAE of u"] == 0.2
    assert figures["all: SROCC of a member alone, mean"] == 0  # one right, one its opposite
    assert figures["all: SROCC over noise formula, 95 % low"] == 2
    assert figures["doses a factor 2 or more apart: share in order"] == 1
    assert figures["smoothed: mean change of score"] == 0
    assert figures["child against adult at equal noise: share within 0.3"] == 1
    assert -0.1 <= figures["turned, or other surroundings: mean change of score"] < -0.08
    assert figures["splines at zero: SROCC"] == 1
    assert figures["90% interval of a slice, all: share inside"] == 1


def test_a_second_run_gives_the_same_figures():
    """Draws come from the seed; what does not exist is left out, not written as NaN."""
    once, again = (cross_validated_figures(found(), 0.9, seed=0) for _ in range(2))

    assert once == again
    assert len({one.name for one in once}) == len(once)
    assert {one.command for one in once} == {TRAIN}
    assert np.isfinite([one.value for one in once]).all()
    assert not any("never fitted to" in one.name for one in once)
