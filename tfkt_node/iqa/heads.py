"""The head: tokens to one raw quality u on an open scale."""

from __future__ import annotations

from torch import Tensor, nn

MIDDLE_OF_SCALE = 2.0


class ScalarHead(nn.Module):
    """Average the tokens, then one number a slice.

    u is not bounded: it is squashed to the score 0..4 outside the network (`iqa.uncertainty`).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 1)
        nn.init.constant_(self.linear.bias, MIDDLE_OF_SCALE)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, rows, columns, d) to (n,)."""
        pooled = tokens.mean(dim=(1, 2))  # (n, d)
        quality: Tensor = self.linear(pooled).squeeze(-1)
        return quality
