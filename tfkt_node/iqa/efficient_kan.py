"""A Kolmogorov-Arnold layer on a uniform grid, with the cubic B-spline basis in closed form.

Each edge i -> o carries its own curve: w_oi silu(x_i) + sum_j c_oij B_j(x_i). With a uniform grid
every B_j is one bump, shifted: with t = |x - centre_j| / h,

    B_j(x) = ((2 - t)+^3 - 4 (1 - t)+^3) / 6        (x+ means max(x, 0))

which equals the Cox-de Boor recursion on knots a + (j - 3) h, without its memory. The closed form
rules out adapting the grid; a LayerNorm before each layer keeps the inputs on it instead.

Sources: de Boor, A Practical Guide to Splines (1978), ch. IX; Liu et al., KAN, arXiv 2404.19756;
the split into two matrix products follows the idea of Blealtan's efficient-kan.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ORDER = 3


def cubic_basis(x: Tensor, centres: Tensor, spacing: float) -> Tensor:
    """Evaluate the cubic B-splines of a uniform grid at each x.

    x: (...). centres: (m,) float32, also under autocast: they widen a bfloat16 x, whose bases
    would sum to 1 only within 1 %. Returns (..., m), of the wider dtype.
    Beyond two spacings from a centre the basis is 0, and so is its gradient.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _CubicBasis.apply(x, centres, spacing)  # type: ignore[no-any-return, no-untyped-call]
    return _values(x, centres, spacing)


def _values(x: Tensor, centres: Tensor, spacing: float) -> Tensor:
    t = (x[..., None] - centres).abs() / spacing  # (..., m)
    outer = (2 - t).clamp(min=0)
    inner = (1 - t).clamp(min=0)
    return (outer**3 - 4 * inner**3) / 6


class _CubicBasis(torch.autograd.Function):
    """The same values, with the derivative written out: autograd would keep five tensors, not one.

    dB/dx = -sign(x - centre) ((2 - t)+^2 - 4 (1 - t)+^2) / (2 h)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centres: Tensor, spacing: float) -> Tensor:
        ctx.save_for_backward(x, centres)
        ctx.spacing = spacing
        return _values(x, centres, spacing)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, centres = ctx.saved_tensors
        offset = (x[..., None] - centres) / ctx.spacing  # (..., m)
        t = offset.abs()
        outer = (2 - t).clamp(min=0)
        inner = (1 - t).clamp(min=0)
        slope = offset.sign() * (4 * inner**2 - outer**2) / (2 * ctx.spacing)
        return (gradient * slope).sum(-1), None, None


class KanLayer(nn.Module):
    """Sums of learnt curves: (..., inputs) -> (..., outputs). No bias.

    intervals: G grid intervals over -reach..reach, hence G + 3 bases. An input further out than
    reach + 3 spacings is carried by the SiLU branch alone.
    """

    def __init__(self, inputs: int, outputs: int, intervals: int, reach: float) -> None:
        super().__init__()
        self.spacing = 2 * reach / intervals
        bases = intervals + ORDER
        # Basis j spans knots j..j+4 of the extended grid, whose first knot is -reach - 3 h.
        centres = -reach + self.spacing * (torch.arange(bases) - 1)
        self.register_buffer("centres", centres, persistent=False)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.coefficients = nn.Parameter(torch.empty(outputs, inputs, bases))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        # Curves start near zero, as small as in the paper, so that the SiLU branch leads at first.
        nn.init.uniform_(self.coefficients, -0.05 / intervals, 0.05 / intervals)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        centres = self.get_buffer("centres")
        basis = cubic_basis(x, centres, self.spacing).flatten(-2)  # (..., inputs * bases)
        splines = functional.linear(basis, self.coefficients.flatten(1))  # (..., outputs)
        return functional.linear(functional.silu(x), self.weight) + splines


class KanFeedForward(nn.Module):
    """The feed-forward of a transformer block made of two KAN layers: (..., d) -> (..., d).

    A LayerNorm stands before each layer: without it 14-44 % of the inputs leave the grid, where
    the splines are dead.
    """

    def __init__(self, dim: int, hidden: int, intervals: int, reach: float) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(dim)
        self.layer_in = KanLayer(dim, hidden, intervals, reach)
        self.norm_out = nn.LayerNorm(hidden)
        self.layer_out = KanLayer(hidden, dim, intervals, reach)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d) to (..., d)."""
        hidden: Tensor = self.layer_in(self.norm_in(x))  # (..., hidden)
        out: Tensor = self.layer_out(self.norm_out(hidden))  # (..., d)
        return out
