from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

pytestmark = pytest.mark.station

GRIDS = pytest.mark.parametrize(("intervals", "reach"), [(5, 2.0), (8, 3.0), (1, 1.0)])


def knots(intervals: int, reach: float) -> np.ndarray:
    """The extended knots that the closed form stands for."""
    return -reach + (np.arange(intervals + 7) - 3) * 2 * reach / intervals


@pytest.fixture
def basis(torch, kan, intervals, reach):
    """The closed form in double precision, x -> (len(x), intervals + 3)."""
    layer = kan.KanLayer(1, 1, intervals, reach).double()
    return lambda x: layer.basis(torch.from_numpy(x)).numpy()


@pytest.fixture
def layer(torch, kan):
    """A layer with curves that bend, in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer = kan.KanLayer(4, 3, 5, 2.0).double()
        torch.nn.init.normal_(layer.coefficients)
    return layer


@GRIDS
def test_basis_equals_scipy_on_the_grid(basis, intervals, reach):
    """The closed form is the B-spline basis of de Boor, also on the knots themselves."""
    x = np.unique(np.concatenate([np.linspace(-reach, reach, 997), knots(intervals, reach)[3:-3]]))
    x = x.clip(-reach, reach)

    expected = BSpline.design_matrix(x, knots(intervals, reach), 3).toarray()

    assert np.allclose(basis(x), expected, rtol=0, atol=1e-12)


@GRIDS
def test_basis_equals_each_spline_beyond_the_grid(basis, intervals, reach):
    """Off the grid the bases fade as the single splines do; past the last knot they are 0."""
    t = knots(intervals, reach)
    x = np.linspace(t[0] - 1, t[-1] + 1, 501)

    expected = np.stack(
        [
            np.nan_to_num(BSpline.basis_element(t[j : j + 5], extrapolate=False)(x))
            for j in range(intervals + 3)
        ],
        axis=-1,
    )
    got = basis(x)

    assert np.allclose(got, expected, rtol=0, atol=1e-12)
    assert not got[(x < t[0]) | (x > t[-1])].any()


@GRIDS
def test_bases_sum_to_one_in_single_precision(torch, kan, intervals, reach):
    """The bases are a partition of unity over the whole grid, both ends included."""
    layer = kan.KanLayer(1, 1, intervals, reach)
    x = torch.linspace(-reach, reach, 1001).clamp(-reach, reach)

    sums = layer.basis(x).sum(-1)

    assert x[0] == -reach
    assert x[-1] == reach
    assert torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-6)


def test_written_gradient_is_the_gradient(torch, layer):
    """The derivatives equal finite differences in double precision, on the grid and beyond."""
    x = torch.linspace(-3.4, 3.4, 28, dtype=torch.float64).reshape(7, 4).requires_grad_()

    assert torch.autograd.gradcheck(layer.basis, (x,))
    assert torch.autograd.gradcheck(
        lambda x, weight, coefficients: torch.func.functional_call(
            layer, {"weight": weight, "coefficients": coefficients}, (x,)
        ),
        (x, layer.weight, layer.coefficients),
    )


def test_layer_is_the_sum_of_its_curves(torch, layer):
    """y_o = sum_i w_oi silu(x_i) + sum_ij c_oij B_j(x_i), summed edge by edge."""
    x = np.random.default_rng(1).uniform(-2, 2, (6, 4))

    splines = BSpline(knots(5, 2.0), np.moveaxis(layer.coefficients.detach().numpy(), -1, 0), 3)
    silu = x / (1 + np.exp(-x))
    expected = np.array(
        [
            [
                sum(
                    layer.weight[o, i].item() * silu[n, i] + splines(x[n, i])[o, i]
                    for i in range(4)
                )
                for o in range(3)
            ]
            for n in range(6)
        ]
    )

    assert np.allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, rtol=0, atol=1e-12)


# --- The range


def smooth_curves(torch, layer, reach: float):
    """Fill a layer with cubics, which every cubic spline can write; return x -> its spline part."""
    points = torch.linspace(-reach, reach, 400, dtype=torch.float64)
    cubics = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    values = torch.stack([points**n for n in range(4)], dim=-1) @ cubics
    fitted = torch.linalg.lstsq(layer.basis(points), values).solution.T
    with torch.no_grad():
        layer.coefficients.copy_(fitted.view_as(layer.coefficients))
        layer.weight.zero_()


@pytest.mark.parametrize("reach", [0.7, 1.9, 2.0])
def test_refit_keeps_the_function(torch, layer, reach):
    """A curve that the new grid can write stays as it was, all over the new range."""
    smooth_curves(torch, layer, 2.0)
    x = reach * (2 * torch.rand(50, 4, dtype=torch.float64) - 1)
    before = layer(x)

    layer.rescale(reach)

    assert torch.allclose(layer(x), before, rtol=0, atol=1e-6)
    assert np.allclose(
        layer.basis(x[:, 0]).numpy(),
        BSpline.design_matrix(x[:, 0].numpy(), knots(5, reach), 3).toarray(),
        atol=1e-6,
    )


def test_refit_keeps_any_curve_nearly(torch, layer):
    """A curve that the new grid cannot write is kept within a few per cent of its spread.

    Twice, to show that nothing is applied a second time: a scale beside the coefficients would be
    (ct-iqa 4.2).
    """
    torch.nn.init.zeros_(layer.weight)
    x = 3.6 * torch.rand(2000, 4, dtype=torch.float64) - 1.8
    before = layer(x)

    for reach in (2.1, 2.0):
        layer.rescale(reach)
        change = (layer(x) - before).square().mean().sqrt()
        assert 0 < change < 0.1 * before.std()


def test_refit_is_the_nearest_curve(torch, layer):
    """No other coefficients on the new grid come closer: the error is orthogonal to each basis."""
    torch.nn.init.zeros_(layer.weight)
    points = torch.linspace(-1.5, 1.5, 32 * 5 + 1, dtype=torch.float64)
    before = layer(points[:, None].expand(-1, 4))

    layer.rescale(1.5)

    error = layer(points[:, None].expand(-1, 4)) - before
    assert error.abs().max() > 1e-3
    assert (layer.basis(points).T @ error).abs().max() < 1e-9


@pytest.mark.parametrize("reach", [0.0, -1.0, float("nan"), float("inf")])
def test_no_range_is_refused(layer, reach):
    """A grid of no width has no spacing to divide by."""
    with pytest.raises(ValueError, match="reach must be a positive number"):
        layer.rescale(reach)


def test_range_is_fitted_to_the_inputs(torch, layer):
    """The grid spans 99 % of what comes in, by size; one far value does not stretch it."""
    x = torch.linspace(-1, 1, 4004, dtype=torch.float64).reshape(1001, 4)
    x[500] = 1e6

    layer.fit_range(x)

    assert layer.reach.item() == pytest.approx(0.99, abs=0.005)


def test_range_of_repeated_inputs(torch, layer):
    """A constant or dead input leaves a grid that computes: no knots fall together."""
    layer.fit_range(torch.zeros(100, 4))

    out = layer(torch.zeros(2, 4, dtype=torch.float64, requires_grad=True))
    out.sum().backward()

    assert layer.reach == pytest.approx(0.1)
    assert out.isfinite().all()
    assert layer.coefficients.grad.isfinite().all()


def test_range_is_not_fitted_to_a_handful(torch, layer):
    """Fewer than ten rows a basis decide nothing."""
    with pytest.raises(ValueError, match="at least 80 rows of inputs: got 79"):
        layer.fit_range(torch.randn(79, 4))


def test_ranges_of_a_network_are_fitted_front_to_back(torch, kan):
    """Each layer's range fits what the rescaled layers before it send, and hooks leave no trace."""
    torch.manual_seed(1)
    block = kan.KanFeedForward(64, 32, 5, 2.0)
    torch.nn.init.constant_(block.norm_in.weight, 3.0)
    x = torch.randn(200, 64)

    kan.fit_ranges(block, lambda: block(x))

    seen = block.norm_in(x)
    reached = [layer.reach.item() for layer in kan.kan_layers(block)]
    assert reached[0] == pytest.approx(seen.abs().quantile(0.99).item(), rel=0.01)
    hidden = block.norm_out(block.layer_in(seen))
    assert reached[1] == pytest.approx(hidden.abs().quantile(0.99).item(), rel=0.01)
    block(10 * x)
    assert reached == [layer.reach.item() for layer in kan.kan_layers(block)]


# --- The traps of ct-iqa 4.2


def test_far_input_is_carried_by_silu(torch, layer):
    """Past the last knot the splines are 0, but the input still passes, and gets its gradient."""
    x = torch.full((1, 4), 50.0, dtype=torch.float64, requires_grad=True)

    out = layer(x)
    out.sum().backward()

    assert torch.allclose(out, torch.nn.functional.silu(x) @ layer.weight.T)
    assert (x.grad != 0).all()


def test_far_inputs_stay_on_the_grid_behind_the_norms(torch, kan):
    """Inputs of any scale reach the splines: the LayerNorm before each layer brings them there."""
    torch.manual_seed(0)
    feed_forward = kan.KanFeedForward(64, 32, 5, 2.0)
    torch.nn.init.normal_(feed_forward.layer_in.weight, std=100.0)
    seen = []
    for layer in (feed_forward.layer_in, feed_forward.layer_out):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    out = feed_forward(50 + 1000 * torch.randn(7, 16, 64))

    assert out.shape == (7, 16, 64)
    assert len(seen) == 2
    for x in seen:
        last_knot = 2 + 3 * 4 / 5
        assert (x.abs() > last_knot).float().mean() < 0.01


def test_last_knot_counts(torch, layer):
    """At both ends of the range the curve is what it is just inside: no interval is half open."""
    ends = torch.tensor([[2.0], [-2.0]], dtype=torch.float64).expand(2, 4)

    assert torch.allclose(layer(ends), layer(ends * (1 - 1e-9)), rtol=0, atol=1e-7)
    assert layer.basis(ends).sum(-1).allclose(torch.ones(2, 4, dtype=torch.float64))


def test_autocast_keeps_the_layer_in_single_precision(torch, layer):
    """Under autocast to bfloat16 the curves are computed as without it."""
    layer = layer.float()
    x = torch.linspace(-2, 2, 400).reshape(100, 4)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x.bfloat16())

    assert out.dtype == torch.float32
    assert torch.equal(out, layer(x.bfloat16().float()))


def test_zero_weights_compute(torch, kan, layer):
    """A layer of zeros gives 0, and finite gradients that lead away from it."""
    kan.zero_splines(layer)
    torch.nn.init.zeros_(layer.weight)
    x = torch.randn(9, 4, dtype=torch.float64)

    out = layer(x)
    out.sum().backward()
    layer.rescale(1.0)

    assert not out.any()
    assert layer.coefficients.grad.any()
    assert layer.weight.grad.isfinite().all()
    assert not layer.coefficients.any()


def test_range_travels_with_the_weights(torch, kan, layer):
    """The state dict holds the range: another layer computes the same from it."""
    layer.rescale(3.5)
    other = kan.KanLayer(4, 3, 5, 2.0).double()

    other.load_state_dict(layer.state_dict(), strict=True)

    x = torch.randn(20, 4, dtype=torch.float64)
    assert torch.equal(other(x), layer(x))


def test_any_leading_shape(torch, layer):
    """Tokens need not be flattened; each is computed by itself."""
    x = torch.randn(2, 5, 7, 4, dtype=torch.float64)

    out = layer(x)

    assert out.shape == (2, 5, 7, 3)
    assert torch.allclose(out[1, 4, 6], layer(x[1, 4, 6]))


def test_memory_is_one_basis(torch, kan):
    """For the gradient a layer keeps one basis of its inputs, not one for each order."""
    layer = kan.KanLayer(8, 8, 5, 2.0)
    x = torch.randn(1000, 8, requires_grad=True)
    kept: dict[int, int] = {}

    def count(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        layer(x)

    weights = layer.weight.numel() + layer.coefficients.numel()
    bases, copies_of_x = 8, 3
    assert sum(kept.values()) <= x.numel() * (bases + copies_of_x) + weights + 16


def test_zero_splines_leaves_silu(torch, kan):
    """Every curve of a network loses its spline and keeps its SiLU."""
    block = kan.KanFeedForward(64, 32, 5, 2.0)
    weights = [layer.weight.clone() for layer in kan.kan_layers(block)]

    kan.zero_splines(block)

    for layer, weight in zip(kan.kan_layers(block), weights, strict=True):
        assert not layer.coefficients.any()
        assert torch.equal(layer.weight, weight)
