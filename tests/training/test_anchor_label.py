"""The label fits the images that its constants were set on, and says how much of that is earned."""

from __future__ import annotations

import numpy as np
import pytest

from tfkt_node.training.images.real_images import anchors
from tfkt_node.training.simulation.anchor_label import anchor_labels

pytestmark = pytest.mark.station


def test_label_fits_readers_better_than_noise_alone(shared_data, require_module):
    """In sample the label misses readers by under 0.1 points (noise alone 0.24), left out more."""
    require_module("skimage")

    labels = anchor_labels(anchors(shared_data))

    readers = np.array([label.readers for label in labels])
    in_sample = np.abs(np.array([label.label for label in labels]) - readers)
    left_out = np.abs(np.array([label.left_out for label in labels]) - readers)
    assert in_sample.mean() < 0.1
    assert in_sample.mean() < left_out.mean() < 0.3
