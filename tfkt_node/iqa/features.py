"""F: a slice in Hounsfield units to feature maps.

Most maps come from a network trained on natural images (EfficientNet-Lite0); a few say in plain
numbers how much noise of each size there is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfkt_node.iqa.bundle import WINDOW_HU
from tfkt_node.iqa.timm_import import import_timm

SOFT_HU = (-160.0, 240.0)
"""The soft-tissue window, in which readers judge noise (width 400, level 40)."""

HIGH_PASS_PX = 8
HIGH_PASS_HU = 100.0
"""The high-pass channel: what stands out from the mean of 8 x 8 pixels, full at 100 HU."""

Inputs = Literal["wide", "windows", "bands"]
"""What the features see: the wide window alone; wide, soft-tissue window and high-pass as the
three channels of the stem; or these and the noise bands."""

LAST_BLOCK_GROUP = 5
"""Groups of EfficientNet-Lite0 up to stride 16; the two at stride 32 are left away."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to stride 16, for slices in HU.

    Every channel lies in -1..1, as the ImageNet weights expect. Names of the parameters are timm's.
    """

    def __init__(self, inputs: Inputs = "bands") -> None:
        super().__init__()
        timm = import_timm()
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.conv_stem = whole.conv_stem
        self.bn1 = whole.bn1
        self.blocks = whole.blocks[:LAST_BLOCK_GROUP]
        self.inputs = inputs
        bands = BAND_MAPS if inputs == "bands" else 0
        self.channels = 24 + 40 + 112 + bands
        """Of all maps together."""

    def forward(self, hu: Tensor) -> tuple[Tensor, ...]:
        """Map (n, 512, 512) float32, HU, to maps at strides 4, 8 and 16, and the noise bands."""
        stride_4, stride_8 = self.early(hu)
        maps = (stride_4, stride_8, self.late(stride_8))
        return (*maps, noise_bands(hu)) if self.inputs == "bands" else maps

    def early(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """Map (n, rows, columns), HU, to the maps at strides 4 and 8: edges and texture."""
        x = self.bn1(self.conv_stem(self._see(hu)))  # (n, 32, 256, 256)
        x = self.blocks[0](x)  # (n, 16, 256, 256)
        stride_4 = self.blocks[1](x)  # (n, 24, 128, 128)
        return stride_4, self.blocks[2](stride_4)  # (n, 40, 64, 64)

    def late(self, stride_8: Tensor) -> Tensor:
        """Map (n, 40, 64, 64) to the maps at stride 16, (n, 112, 32, 32)."""
        out: Tensor = self.blocks[4](self.blocks[3](stride_8))
        return out

    def _see(self, hu: Tensor) -> Tensor:
        """Return the three channels of the stem, (n, 3, rows, columns) in -1..1."""
        wide = _window(hu[:, None], WINDOW_HU)
        if self.inputs == "wide":
            return wide.expand(-1, 3, -1, -1)
        soft = hu[:, None].clamp(*SOFT_HU)
        coarse = functional.avg_pool2d(soft, HIGH_PASS_PX)
        high = (_less_blocks(soft, coarse) / HIGH_PASS_HU).clamp(-1, 1)
        return torch.cat([wide, _window(soft, SOFT_HU), high], dim=1)


BAND_PX = (1, 2, 4)
"""Noise bands, by the finer size of what is compared: pixels, blocks of 2 x 2, of 4 x 4."""

BAND_MAPS = 3 * len(BAND_PX)

_CELL = 16
_BLOCK = 8
_LEAST_HU = 1.0
"""Less is no noise of a scanner."""


def noise_bands(hu: Tensor) -> Tensor:
    """Measure noise by size: (n, rows, columns), HU, to (n, 9, rows / 16, columns / 16).

    A band (Haar) is what blocks of one size show against the mean of the four they belong to. Of
    each band, in cells of 16 x 16 pixels: the SD of the evenest quarter, which edges hardly touch;
    the SD of the whole; and the mean size, which filters that spare edges lower more than the SD.
    All as ln(HU) - 2.5. Cut to the soft-tissue window, since bone is no noise.
    """
    finer = hu[:, None].clamp(*SOFT_HU)
    maps = []
    for size in BAND_PX:
        coarser = functional.avg_pool2d(finer, 2)
        band = _less_blocks(finer, coarser)
        blocks = functional.avg_pool2d(band**2, _BLOCK // size)
        maps += [
            0.5 * (-functional.max_pool2d(-blocks, 2) + _LEAST_HU).log(),
            0.5 * (functional.avg_pool2d(blocks, 2) + _LEAST_HU).log(),
            (functional.avg_pool2d(band.abs(), _CELL // size) + _LEAST_HU).log(),
        ]
        finer = coarser
    return torch.cat(maps, dim=1) - 2.5


def _window(hu: Tensor, window: tuple[float, float]) -> Tensor:
    low, high = window
    return (2 * (hu - low) / (high - low) - 1).clamp(-1, 1)


def _less_blocks(finer: Tensor, coarser: Tensor) -> Tensor:
    """Take from each pixel the value of the block it lies in, without enlarging the blocks."""
    n, channels, rows, columns = coarser.shape
    size = finer.shape[-1] // columns
    blocks = finer.reshape(n, channels, rows, size, columns, size)
    return (blocks - coarser.reshape(n, channels, rows, 1, columns, 1)).reshape(finer.shape)
