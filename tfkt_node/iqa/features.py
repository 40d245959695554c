"""F: a slice in Hounsfield units to the feature maps of a network trained on natural images."""

from __future__ import annotations

from torch import Tensor, nn

from tfkt_node.iqa.timm_import import import_timm

WINDOW_HU = (-1000.0, 400.0)
"""What the network sees, clipped; the coding of the challenge images (LDCTIQAC 2023)."""

LAST_BLOCK_GROUP = 5
"""Groups of EfficientNet-Lite0 up to stride 16; the two at stride 32 are left away."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to stride 16, for one channel in HU.

    The window maps -1000..400 HU to x in 0..1, then to (x - 0.5) / 0.5 as the ImageNet weights
    expect; the stem holds the sum of its three colour kernels, so that a grey slice gives exactly
    what three equal channels gave. Names of the parameters are timm's.
    """

    CHANNELS = (24, 40, 112)
    """Of the maps at strides 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        timm = import_timm()
        whole = timm.create_model("tf_efficientnet_lite0", pretrained=False, in_chans=1)
        self.conv_stem = whole.conv_stem
        self.bn1 = whole.bn1
        self.blocks = whole.blocks[:LAST_BLOCK_GROUP]

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, 512, 512) float32, HU, to the maps at strides 4, 8 and 16."""
        low, high = WINDOW_HU
        x = ((hu - low) / (high - low)).clamp(0, 1)
        x = (x[:, None] - 0.5) / 0.5  # (n, 1, 512, 512) in -1..1
        x = self.bn1(self.conv_stem(x))  # (n, 32, 256, 256)
        x = self.blocks[0](x)  # (n, 16, 256, 256)
        stride_4 = self.blocks[1](x)  # (n, 24, 128, 128)
        stride_8 = self.blocks[2](stride_4)  # (n, 40, 64, 64)
        stride_16 = self.blocks[4](self.blocks[3](stride_8))  # (n, 112, 32, 32)
        return stride_4, stride_8, stride_16
