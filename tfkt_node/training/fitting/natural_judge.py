"""What learns from opinions: the features with a linear head on their pooled maps."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tfkt_node.iqa.features import EfficientNetLite0

LATE = ("blocks.3.", "blocks.4.")
"""What learns, by the names of the features: the blocks between strides 8 and 16."""


class Judge(nn.Module):
    """Features and a linear head: an image in HU to a score like those of natural images.

    The head sees mean and log SD of every map at strides 4, 8 and 16, standardised. Takes a copy
    of the features and leaves their batch statistics alone: those of natural images are not CT's.
    """

    def __init__(self, features: EfficientNetLite0) -> None:
        super().__init__()
        self.features = copy.deepcopy(features).eval()
        with torch.no_grad():
            inputs = self.inputs(*self.look(torch.zeros(1, 64, 64))).shape[1]
        self.middle: Tensor
        self.spread: Tensor
        self.register_buffer("middle", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.head = nn.Linear(inputs, 1)

    def forward(self, hu: Tensor) -> Tensor:
        """Map (n, rows, columns) float32, HU, to scores (n,)."""
        return self.judge(*self.look(hu))

    def look(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """Map HU to what training leaves as it is: pooled early maps (n, 128), maps at stride 8."""
        stride_4, stride_8 = self.features.early(hu)
        return torch.cat([_pooled(stride_4), _pooled(stride_8)], dim=1), stride_8

    def inputs(self, early: Tensor, stride_8: Tensor) -> Tensor:
        """Return what the head sees, (n, 352), before it is standardised."""
        return torch.cat([early, _pooled(self.features.late(stride_8))], dim=1)

    def judge(self, early: Tensor, stride_8: Tensor) -> Tensor:
        """Map what `look` returned to scores (n,)."""
        score: Tensor = self.head((self.inputs(early, stride_8) - self.middle) / self.spread)
        return score[:, 0]

    def late_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the blocks that learn."""
        return [p for name, p in self.features.named_parameters() if name.startswith(LATE)]

    @torch.no_grad()
    def start_head(self, inputs: Tensor, score: Tensor, penalty: float) -> None:
        """Fit the head alone by ridge regression: inputs (n, 352), scores (n,)."""
        x, y = inputs.double(), score.double()
        self.middle.copy_(x.mean(0))
        self.spread.copy_(x.std(0) + 1e-6)
        x = (x - self.middle) / self.spread
        square = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
        self.head.weight.copy_(torch.linalg.solve(square, x.T @ (y - y.mean()))[None])
        self.head.bias.fill_(float(y.mean()))


def _pooled(maps: Tensor) -> Tensor:
    """Mean and log SD of each map: (n, C, rows, columns) -> (n, 2 C)."""
    # Not the logarithm of 0, whose slope is infinite.
    spread = 0.5 * (maps.var(dim=(2, 3)) + 1e-3).log()
    return torch.cat([maps.mean(dim=(2, 3)), spread], dim=1)
