from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

pytestmark = pytest.mark.station

GRIDS = pytest.mark.parametrize(("intervals", "reach"), [(5, 2.0), (8, 3.0), (1, 1.0)])


@pytest.fixture(scope="module")
def kan(torch):
    from tfkt_node.iqa import efficient_kan

    return efficient_kan


def knots(intervals: int, reach: float) -> np.ndarray:
    """The extended knots that the closed form stands for."""
    return -reach + (np.arange(intervals + 7) - 3) * 2 * reach / intervals


@pytest.fixture
def basis(torch, kan, intervals, reach):
    """The closed form in double precision, x -> (len(x), intervals + 3)."""
    layer = kan.KanLayer(1, 1, intervals, reach).double()
    return lambda x: kan.cubic_basis(torch.from_numpy(x), layer.centres, layer.spacing).numpy()


@GRIDS
def test_basis_equals_scipy_on_the_grid(basis, intervals, reach):
    """The closed form is the B-spline basis of de Boor, also on the knots themselves."""
    x = np.unique(np.concatenate([np.linspace(-reach, reach, 997), knots(intervals, reach)[3:-3]]))
    x = x.clip(-reach, reach)

    expected = BSpline.design_matrix(x, knots(intervals, reach), 3).toarray()

    assert np.allclose(basis(x), expected, rtol=0, atol=1e-6)


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

    assert np.allclose(got, expected, rtol=0, atol=1e-6)
    assert not got[(x < t[0] - 1e-6) | (x > t[-1] + 1e-6)].any()


@GRIDS
@pytest.mark.parametrize("activations", ["float32", "bfloat16"])
def test_bases_sum_to_one_in_single_precision(torch, kan, intervals, reach, activations):
    """The bases are a partition of unity on the grid, also when the activations are bfloat16."""
    layer, dtype = kan.KanLayer(1, 1, intervals, reach), getattr(torch, activations)
    x = torch.linspace(-reach, reach, 1001).to(dtype).clamp(-reach, reach)

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        sums = kan.cubic_basis(x, layer.centres, layer.spacing).sum(-1)

    assert sums.dtype == torch.float32
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-6)


def test_written_gradient_is_the_gradient(torch, kan):
    """The derivative written by hand equals finite differences in double precision."""
    layer = kan.KanLayer(3, 2, 5, 2.0).double()
    x = torch.linspace(-3.4, 3.4, 27, dtype=torch.float64).reshape(9, 3).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda x: kan.cubic_basis(x, layer.centres, layer.spacing), (x,), atol=1e-7
    )
    assert torch.autograd.gradcheck(layer, (x,), atol=1e-7)


def test_layer_is_the_sum_of_its_curves(torch, kan):
    """y_o = sum_i w_oi silu(x_i) + sum_ij c_oij B_j(x_i), summed edge by edge."""
    layer = kan.KanLayer(4, 3, 5, 2.0).double()
    torch.nn.init.normal_(layer.coefficients)
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

    assert np.allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-6)


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
        assert (x.abs() > 2 + 3 * feed_forward.layer_in.spacing).float().mean() < 0.01
