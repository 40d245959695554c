"""A draw of a bootstrap is worth exactly what its repeated rows are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from tfkt_node.training.judging.measures import correlation, once, ranks, srocc

few = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=3, max_size=20
)


@settings(deadline=None, max_examples=40)
@given(few)
def test_weight_counts_as_repeats(images):
    """Ranks and Spearman's correlation are scipy's of the rows, each as often as it weighs."""
    truth, said, weight = np.array(images, float).T
    repeats = weight.astype(int)
    many_truth, many_said = np.repeat(truth, repeats), np.repeat(said, repeats)

    rank = ranks(truth, weight[None])[0]
    found = srocc(truth, said, weight[None])[0]

    assert np.repeat(rank, repeats) == pytest.approx(rankdata(many_truth))
    if len(set(many_truth)) > 1 and len(set(many_said)) > 1:
        assert found == pytest.approx(spearmanr(many_truth, many_said).statistic, abs=1e-9)


def test_each_draw_has_its_own_correlation():
    """Draws are independent rows of one matrix; a value that does not vary has none."""
    truth, said = np.array([1.0, 2, 3, 9]), np.array([1.0, 2, 3, 0])
    weights = np.array([[1.0, 1, 1, 0], [1, 1, 1, 1], [3, 0, 0, 0]])

    found = correlation(truth, said, weights)

    assert found[:2] == pytest.approx([1, pearsonr(truth, said).statistic])
    assert np.isnan(found[2])


def test_once_is_the_plain_correlation():
    """The draw that holds every row once is the sample itself."""
    truth, said = np.array([3.0, 1, 2, 2]), np.array([2.0, 2, 1, 3])

    assert srocc(truth, said, once(4)) == pytest.approx(spearmanr(truth, said).statistic)
