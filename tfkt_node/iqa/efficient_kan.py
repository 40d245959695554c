"""A Kolmogorov-Arnold layer on a uniform grid, with the cubic B-spline basis in closed form.

Each edge i -> o carries its own curve: w_oi silu(x_i) + sum_j c_oij B_j(x_i). With a uniform grid
every B_j is one bump, shifted: with t = |x - centre_j| / h, h the spacing of the knots,

    B_j(x) = ((2 - t)+^3 - 4 (1 - t)+^3) / 6        (x+ means max(x, 0))

which equals the Cox-de Boor recursion on knots -reach + (j - 3) h, without its memory. The closed
form rules out knots that follow the data one by one: a LayerNorm before each layer keeps the inputs
on the grid, and `rescale` moves the grid as a whole.

Sources: de Boor, A Practical Guide to Splines (1978), ch. IX; Liu et al., KAN, arXiv 2404.19756;
the split into two matrix products follows the idea of Blealtan's efficient-kan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ORDER = 3
POINTS_PER_INTERVAL = 32
LEAST_INPUTS_PER_BASIS = 10
LEAST_REACH = 0.1
COVERED = 0.99


def cubic_basis(x: Tensor, centres: Tensor) -> Tensor:
    """Evaluate the cubic B-splines of a uniform grid at each x, both in units of the spacing.

    x: (...). centres: (m,). Returns (..., m). Beyond two spacings from a centre the basis is 0, and
    so is its gradient.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _CubicBasis.apply(x, centres)  # type: ignore[no-any-return, no-untyped-call]
    return _values(x, centres)


def _values(x: Tensor, centres: Tensor) -> Tensor:
    t = (x[..., None] - centres).abs()  # (..., m)
    outer = (2 - t).clamp(min=0)
    inner = (1 - t).clamp(min=0)
    return (outer**3 - 4 * inner**3) / 6


class _CubicBasis(torch.autograd.Function):
    """The same values, with the derivative written out: autograd would keep five tensors, not one.

    dB/dx = -sign(x - centre) ((2 - t)+^2 - 4 (1 - t)+^2) / 2
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centres: Tensor) -> Tensor:
        ctx.save_for_backward(x, centres)
        return _values(x, centres)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, centres = ctx.saved_tensors
        offset = x[..., None] - centres  # (..., m)
        t = offset.abs()
        outer = (2 - t).clamp(min=0)
        inner = (1 - t).clamp(min=0)
        slope = offset.sign() * (4 * inner**2 - outer**2) / 2
        return (gradient * slope).sum(-1), None


class KanLayer(nn.Module):
    """Sums of learnt curves: (..., inputs) -> (..., outputs). No bias.

    intervals: G grid intervals over -reach..reach, hence G + 3 bases. An input further out than
    reach + 3 spacings is carried by the SiLU branch alone. The range is part of the state: it
    travels with the weights.
    """

    def __init__(self, inputs: int, outputs: int, intervals: int, reach: float) -> None:
        super().__init__()
        self.intervals = intervals
        bases = intervals + ORDER
        self.register_buffer("reach", torch.tensor(float(reach)))
        # Basis j spans knots j..j+4 of the extended grid, whose first knot is -G/2 - 3 spacings.
        centres = torch.arange(bases) - 1 - intervals / 2
        self.register_buffer("centres", centres, persistent=False)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.coefficients = nn.Parameter(torch.empty(outputs, inputs, bases))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        # Curves start near zero, as small as in the paper, so that the SiLU branch leads at first.
        nn.init.uniform_(self.coefficients, -0.05 / intervals, 0.05 / intervals)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs).

        In the precision of the weights, also under autocast: bases in bfloat16 would sum to 1 only
        within 1 %.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            basis = self.basis(x).flatten(-2)  # (..., inputs * bases)
            splines = functional.linear(basis, self.coefficients.flatten(1))  # (..., outputs)
            return functional.linear(functional.silu(x), self.weight) + splines

    def basis(self, x: Tensor) -> Tensor:
        """Evaluate the bases of this layer's grid: (...) -> (..., G + 3)."""
        spacing = 2 * self.get_buffer("reach") / self.intervals
        return cubic_basis(x / spacing, self.get_buffer("centres"))

    @torch.no_grad()
    def rescale(self, reach: float) -> None:
        """Move the grid to -reach..reach and refit the curves, so that they stay as they were.

        Least squares at points spread evenly over the new range. Exact where a curve can be
        written on both grids, the nearest curve otherwise. Raises ValueError for no range.
        """
        if not (math.isfinite(reach) and reach > 0):
            raise ValueError(f"reach must be a positive number: got {reach}")
        count = POINTS_PER_INTERVAL * self.intervals + 1
        points = torch.linspace(
            -reach, reach, count, dtype=torch.float64, device=self.weight.device
        )
        edges = self.coefficients.flatten(0, 1).double()  # (outputs * inputs, bases)
        curves = self.basis(points) @ edges.T  # (points, outputs * inputs)
        self.get_buffer("reach").fill_(reach)
        fitted = torch.linalg.lstsq(self.basis(points), curves).solution
        self.coefficients.copy_(fitted.T.view_as(self.coefficients))

    @torch.no_grad()
    def fit_range(self, x: Tensor) -> None:
        """Rescale the grid so that it spans 99 % of the inputs x, (..., inputs).

        For training only. Raises ValueError for too few inputs to judge by.
        """
        least = LEAST_INPUTS_PER_BASIS * (self.intervals + ORDER)
        if x.numel() < least * self.weight.shape[1]:
            rows = x.numel() // self.weight.shape[1]
            raise ValueError(f"a range is fitted to at least {least} rows of inputs: got {rows}")
        sizes = x.abs().flatten()
        reach = float(sizes.kthvalue(math.ceil(COVERED * len(sizes))).values)
        self.rescale(max(reach, LEAST_REACH))


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


def kan_layers(network: nn.Module) -> list[KanLayer]:
    """Return every KAN layer of a network, front to back."""
    return [module for module in network.modules() if isinstance(module, KanLayer)]


@torch.no_grad()
def zero_splines(network: nn.Module) -> None:
    """Set every curve's spline to zero, in place: what is left is SiLU and matrix products."""
    for layer in kan_layers(network):
        layer.coefficients.zero_()


@torch.no_grad()
def fit_ranges(network: nn.Module, run: Callable[[], object]) -> None:
    """Fit the range of every KAN layer to the inputs that `run` brings it, in one pass.

    run: calls the network, with enough data to judge by. Each layer is rescaled just before it
    computes, so that the layers behind it see what they will see.
    """
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: layer.fit_range(inputs[0]))
        for layer in kan_layers(network)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
