"""How well the label itself fits the six images that its two constants were set on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfkt_node.training.images.real_images import STREAKED_ANCHOR, Anchor
from tfkt_node.training.simulation.label import SIGMA_AT_4, STREAK_WEIGHT
from tfkt_node.training.simulation.tissue import even_tissue, noise_hu

_SIGMAS = np.arange(18, 32.01, 0.25)
_WEIGHTS = 2 ** np.arange(0, 1.01, 0.05)


@dataclass(frozen=True, slots=True)
class AnchorLabel:
    """The label of one anchor, 0..4. left_out: with constants set on the other five."""

    name: str
    readers: float
    label: float
    left_out: float


def anchor_labels(anchors: Sequence[Anchor]) -> list[AnchorLabel]:
    """Label the anchors by their noise; all the noise of the streaked one counts as streaks.

    Leaving out the streaked anchor leaves nothing to set the weight of streaks by: it is then 1.
    """
    noise = [noise_hu(anchor.hu, even_tissue(anchor.hu)) for anchor in anchors]

    def label(place: int, sigma_at_4: float, weight: float) -> float:
        seen = noise[place] * (weight if anchors[place].name == STREAKED_ANCHOR else 1.0)
        return min(max(4 - 2 * math.log2(seen / sigma_at_4), 0.0), 4.0)

    def left_out(place: int) -> float:
        others = [p for p in range(len(anchors)) if p != place]

        def error(constants: tuple[float, float]) -> tuple[float, float]:
            missed = sum(abs(label(p, *constants) - anchors[p].readers) for p in others)
            return missed, constants[1]  # the smallest weight among equals

        return label(place, *min(itertools.product(_SIGMAS, _WEIGHTS), key=error))

    return [
        AnchorLabel(a.name, a.readers, label(p, SIGMA_AT_4, STREAK_WEIGHT), left_out(p))
        for p, a in enumerate(anchors)
    ]
