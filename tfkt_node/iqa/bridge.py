"""C: feature maps to the tokens of the Swin transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

TOKENS = 16
"""Rows and columns of tokens that enter the Swin."""

_LEAST_POWER = 1e-6
"""Maps that vary less say nothing."""


def pool_maps(maps: tuple[Tensor, ...]) -> Tensor:
    """Average maps of several strides to the size of the coarsest and stack them.

    Averaging of plain blocks, so that every position keeps its place in the slice: from maps of
    128, 64 and 32 rows to (n, channels, 32, 32), one cell being 16 x 16 pixels of the slice.
    """
    size = min(m.shape[-1] for m in maps)
    pooled = [functional.avg_pool2d(m, m.shape[-1] // size) for m in maps]
    return torch.cat(pooled, dim=1)


def with_spreads(maps: Tensor) -> Tensor:
    """Add to each map how much it varies over the slice: (n, C, h, w) to (n, 2 C, h, w).

    As ln of the SD, the same at every place. Noise, and what a filter makes of it, show in how
    much a map varies; the mean of a token hardly tells.
    """
    spread = (maps.var(dim=(2, 3), keepdim=True, correction=0) + _LEAST_POWER).log() / 2
    return torch.cat([maps, spread.expand_as(maps)], dim=1)


class Standard(nn.Module):
    """Bring each channel to mean 0 and SD 1: maps differ a hundredfold in size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))

    def measure(self, maps: Tensor) -> None:
        """Take mean and SD from maps, (n, channels, rows, columns)."""
        self.get_buffer("mean").copy_(maps.mean(dim=(0, 2, 3)))
        self.get_buffer("spread").copy_(maps.std(dim=(0, 2, 3)).clamp(min=1e-3))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, channels, rows, columns) to the same shape."""
        mean, spread = self.get_buffer("mean"), self.get_buffer("spread")
        return (maps - mean[:, None, None]) / spread[:, None, None]


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


class GlobalBridge(nn.Module):
    """Average the maps over the slice and paint a picture from that vector for the Swin.

    As in the released TFKT V2 (ct-iqa 1.3). Rows and columns of the picture mean nothing in the
    slice: no map of the quality can come from behind it.
    """

    def __init__(self, channels: int, dim: int, side: int) -> None:
        """Build the bridge. side: rows and columns of the picture, a multiple of 16."""
        super().__init__()
        self.side = side
        patch = side // TOKENS
        self.linear = nn.Linear(channels, side * side)
        self.embed = nn.Conv2d(1, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, channels, rows, columns) to tokens (n, 16, 16, d)."""
        picture = self.linear(maps.mean(dim=(2, 3)))  # (n, side * side)
        picture = picture.reshape(-1, 1, self.side, self.side)
        tokens = self.embed(picture).permute(0, 2, 3, 1)  # (n, 16, 16, d)
        normed: Tensor = self.norm(tokens)
        return normed
