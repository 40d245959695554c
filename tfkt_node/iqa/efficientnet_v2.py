"""F of the released TFKT V2: EfficientNetV2-L, from a slice in Hounsfield units to its last map."""

from __future__ import annotations

from torch import Tensor, nn

from tfkt_node.iqa.bundle import WINDOW_HU
from tfkt_node.iqa.timm_import import import_timm

BATCH_NORM_EPS = 1e-3
"""As in torchvision, where the released weights come from; timm's own is 1e-5."""


class EfficientNetV2L(nn.Module):
    """EfficientNetV2-L for one channel, without its classifier. Names of the parameters are timm's.

    The released code scales each slice from its least to its largest value, which is the identity
    on its data, coded over a window. Here the window is fixed (ct-iqa 2.4): one pixel of metal
    would change the score of a whole slice otherwise.
    """

    channels = 1280

    def __init__(self) -> None:
        super().__init__()
        timm = import_timm()
        whole = timm.create_model("efficientnetv2_l", in_chans=1, bn_eps=BATCH_NORM_EPS)
        self.conv_stem = whole.conv_stem
        self.bn1 = whole.bn1
        self.blocks = whole.blocks
        self.conv_head = whole.conv_head
        self.bn2 = whole.bn2

    def forward(self, hu: Tensor) -> tuple[Tensor]:
        """Map (n, 512, 512) float32, HU, to the map at stride 32, (n, 1280, 16, 16)."""
        low, high = WINDOW_HU
        x = ((hu[:, None] - low) / (high - low)).clamp(0, 1)
        x = self.blocks(self.bn1(self.conv_stem(x)))  # (n, 640, 16, 16)
        return (self.bn2(self.conv_head(x)),)
