"""S: tokens through a Swin V2 whose feed-forward is a KAN, an MLP, or an MLP with a KAN beside it.

Attention, windows, shifts and patch merging are timm's (Liu et al., CVPR 2022, arXiv 2111.09883);
only the feed-forward of each block is exchanged. Block: x + norm(attention(x)), then
x + norm(feed-forward(x)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfkt_node.iqa.efficient_kan import KanFeedForward
from tfkt_node.iqa.timm_import import import_timm

HEAD_WIDTH = 32
"""Channels of one attention head, as in every published Swin."""


class MlpFeedForward(nn.Module):
    """Linear, GELU, linear: (..., d) -> (..., d)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., d)."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class GatedKanFeedForward(MlpFeedForward):
    """An MLP with a KAN beside it, behind a gate that starts shut: MLP(x) + g KAN(x).

    While g is 0 it is the MLP, bit for bit: weights fitted without the KAN keep their meaning.
    """

    def __init__(self, dim: int, hidden: int, kan: KanFeedForward) -> None:
        super().__init__(dim, hidden)
        self.kan = kan
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., d)."""
        out: Tensor = super().forward(x) + self.gate * self.kan(x)
        return out


class SwinKat(nn.Module):
    """Stages of Swin V2 blocks; each stage after the first halves the map and doubles d.

    No stage at all is allowed: the tokens are only normed. Windows keep their size: a map smaller
    than one is padded with zeros that take part in the attention, and is not shifted, as in
    torchvision, where the released weights come from (ct-iqa 5.1).
    """

    def __init__(
        self,
        dim: int,
        depths: Sequence[int],
        window: int,
        size: int,
        feed_forward: Callable[[int], nn.Module],
    ) -> None:
        """Build the stages. size: rows of tokens at the entry. feed_forward: made from d."""
        super().__init__()
        import_timm()
        from timm.models.swin_transformer_v2 import SwinTransformerV2Stage

        self.stages = nn.ModuleList()
        self.out_dim = entry = dim
        for number, depth in enumerate(depths):
            self.out_dim = dim * 2**number
            rows = size // 2 ** max(number - 1, 0)  # before this stage's own merging
            stage = SwinTransformerV2Stage(
                dim=entry,
                out_dim=self.out_dim,
                input_resolution=(rows, rows),
                depth=depth,
                num_heads=self.out_dim // HEAD_WIDTH,
                window_size=window,
                always_partition=True,
                downsample=number > 0,
            )
            for block in stage.blocks:
                block.mlp = feed_forward(self.out_dim)
                if block.input_resolution[0] <= window:
                    block.shift_size = (0, 0)
                    block.attn_mask = None
            self.stages.append(stage)
            entry = self.out_dim
        self.norm = nn.LayerNorm(self.out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, 16, 16, d) to (n, 8, 8, 2 d) for two stages."""
        for stage in self.stages:
            tokens = stage(tokens)
        normed: Tensor = self.norm(tokens)
        return normed
