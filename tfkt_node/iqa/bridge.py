"""C: feature maps to the tokens of the Swin transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MAP_SIZE = 32
"""Rows and columns of the pooled maps: one cell is 16 x 16 pixels of the slice."""


def pool_maps(maps: tuple[Tensor, ...]) -> Tensor:
    """Average maps of several strides to one size and stack them: (n, channels, 32, 32).

    Averaging of plain blocks, so that every position keeps its place in the slice.
    """
    pooled = [functional.avg_pool2d(m, m.shape[-1] // MAP_SIZE) for m in maps]
    return torch.cat(pooled, dim=1)


class SpatialBridge(nn.Module):
    """Embed 2 x 2 cells of the pooled maps as one token; position in the slice is kept."""

    PATCH = 2

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, dim, kernel_size=self.PATCH, stride=self.PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, channels, 32, 32) to tokens (n, 16, 16, d)."""
        tokens = self.embed(maps).permute(0, 2, 3, 1)  # (n, 16, 16, d)
        normed: Tensor = self.norm(tokens)
        return normed
