"""S: tokens through a small Swin V2 whose feed-forward is a KAN or an MLP.

Attention, windows, shifts and patch merging are timm's (Liu et al., CVPR 2022, arXiv 2111.09883);
only the feed-forward of each block is exchanged. Block: x + norm(attention(x)), then
x + norm(feed-forward(x)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tfkt_node.iqa.timm_import import import_timm

HEAD_WIDTH = 32
"""Channels of one attention head, as in every published Swin."""


class SwinKat(nn.Module):
    """Stages of Swin V2 blocks; each stage after the first halves the map and doubles d."""

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
        entry = dim
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
                downsample=number > 0,
            )
            for block in stage.blocks:
                block.mlp = feed_forward(self.out_dim)
            self.stages.append(stage)
            entry = self.out_dim
        self.norm = nn.LayerNorm(self.out_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, 16, 16, d) to (n, 8, 8, 2 d) for two stages."""
        for stage in self.stages:
            tokens = stage(tokens)
        normed: Tensor = self.norm(tokens)
        return normed
