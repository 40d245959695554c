"""Heads: tokens to one raw quality u on an open scale.

u is squashed to the score 0..4 outside the network (`iqa.uncertainty`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tfkt_node.iqa.uncertainty import HIGHEST, LOWEST, SOFT_END, U_ENDS

MIDDLE_OF_SCALE = 2.0
STEPS = 21
"""Steps of the ordinal scale: 0, 0.2 .. 4, the mean of five readers (ct-iqa 3.1)."""


class ScalarHead(nn.Module):
    """One number a token, averaged over the slice."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 1)
        nn.init.constant_(self.linear.bias, MIDDLE_OF_SCALE)

    def local(self, tokens: Tensor) -> Tensor:
        """Map (n, rows, columns, d) to the quality at each token, (n, rows, columns)."""
        quality: Tensor = self.linear(tokens).squeeze(-1)
        return quality

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, rows, columns, d) to raw quality u, (n,)."""
        return self.local(tokens).mean(dim=(1, 2))


class OrdinalHead(nn.Module):
    """A probability for each of the 21 steps of the score; the expected score, unsquashed, is u."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, STEPS)
        self.register_buffer("steps", torch.linspace(LOWEST, HIGHEST, STEPS), persistent=False)

    def logits(self, tokens: Tensor) -> Tensor:
        """Map (n, rows, columns, d) to the logits of the steps, (n, 21)."""
        logits: Tensor = self.linear(tokens.mean(dim=(1, 2)))
        return logits

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, rows, columns, d) to raw quality u, (n,)."""
        shares = self.logits(tokens).softmax(dim=-1)  # (n, 21)
        steps = self.get_buffer("steps")
        return unsquash(shares @ steps, shares @ steps.flip(0))


def ranked_probability_score(logits: Tensor, score: Tensor) -> Tensor:
    """Return the loss of an ordinal head: 0 is perfect, 1 the worst. (n, 21), (n,) -> (n,).

    score: 0..4. The mean squared difference of the cumulative shares (Epstein, J. Appl. Meteorol.
    8, 1969). A score between two steps counts as a mix of both, whose mean it is.
    """
    steps = torch.arange(STEPS - 1, dtype=logits.dtype, device=logits.device)
    place = score[:, None] * ((STEPS - 1) / HIGHEST)  # in steps
    wanted = (steps + 1 - place).clamp(0, 1)  # (n, 20)
    shares = logits.softmax(dim=-1).cumsum(dim=-1)[:, :-1]
    return ((shares - wanted) ** 2).mean(dim=-1)


def unsquash(score: Tensor, room: Tensor) -> Tensor:
    """Return u with `iqa.uncertainty.squash(u) == score`; any shape, same shape back.

    score: 0..4. room: 4 - score, which the caller knows better than a subtraction in float32 does:
    near 4, u is decided by the digits that it loses.
    """
    reach = SOFT_END + HIGHEST
    above = U_ENDS[1] - reach * (room / SOFT_END) ** (SOFT_END / reach)
    below = U_ENDS[0] + reach * (score / SOFT_END) ** (SOFT_END / reach)
    bent = torch.where(room < SOFT_END, above, score)
    return torch.where(score < SOFT_END, below, bent)
