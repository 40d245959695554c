from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.iqa.wiring import every_kan_layer_moves_u

pytestmark = pytest.mark.station
CONFIGS = {
    "kan": {},
    "mlp": {"feed_forward": "mlp", "ratio": 2.0},
    "global": {"bridge": "global"},
    "ordinal": {"head": "ordinal"},
    "no swin": {"depths": ()},
    "wide": {"inputs": "wide", "depths": (2,)},
    "members": {"members": 3},
}


@pytest.fixture(scope="module")
def module(torch):
    """tfkt_node.iqa.network, imported late: it needs torch."""
    from tfkt_node.iqa import network

    return network


@pytest.fixture(scope="module", params=list(CONFIGS))
def config(module, request):
    return module.NetworkConfig(**CONFIGS[request.param])


@pytest.fixture(scope="module")
def network(torch, module):
    """The default network, with the same random weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return module.build(module.NetworkConfig())


@pytest.fixture(scope="module")
def maps_of(torch):
    """Random maps that fit a network, (2, channels, 32, 32)."""

    def maps_of(network):
        rng = torch.Generator().manual_seed(6)
        return torch.randn(2, network.features.channels, 32, 32, generator=rng)

    return maps_of


@pytest.fixture(scope="module")
def maps(network, maps_of):
    return maps_of(network)


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_both_halves_make_the_whole(torch, network):
    """Scoring from cached maps gives what scoring the slice gives; shapes are as promised."""
    hu = 300 * torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        maps = network.maps(hu)
        quality = network.quality_from_maps(maps)
        readings = network.readings(hu)

        assert maps.shape == (2, network.features.channels, 32, 32)
        assert quality.shape == (2,)
        assert torch.equal(quality, network(hu))
        for reading, expected in zip(readings, network.readings_from_maps(maps), strict=True):
            assert torch.equal(reading, expected)


def test_readings(torch, module, config, maps_of):
    """Every network gives u, a map of 8 x 8 whose mean is u, and the maps' mean over the slice."""
    network = module.build(config)
    maps = maps_of(network)

    with torch.inference_mode():
        u, local, pooled = network.readings_from_maps(maps)

        assert torch.equal(u, network.quality_from_maps(maps))
    assert local.shape == (2, 8, 8)
    assert torch.allclose(local.mean(dim=(1, 2)), u, rtol=0, atol=1e-6)
    assert torch.equal(pooled, maps.mean(dim=(2, 3)))
    assert pooled.shape == (2, network.features.channels)
    knows_places = config.bridge == "spatial" and config.head == "scalar"
    assert (local.std(dim=(1, 2)) > 1e-3).all() == knows_places


def test_quality_is_the_mean_of_the_members(torch, module, maps_of):
    """Several members see the same features and err each by itself: u is the mean of all."""
    network = module.build(module.NetworkConfig(members=3))
    maps = maps_of(network)

    with torch.inference_mode():
        u, local, _ = network.readings_from_maps(maps)
        described = network.describe(maps)
        alone = [member(described) for member in network.members]

    assert min((a - b).abs().min() for (a, _), (b, _) in combinations(alone, 2)) > 1e-3
    assert torch.allclose(u, sum(one for one, _ in alone) / 3, rtol=0, atol=1e-6)
    assert torch.allclose(local, sum(one for _, one in alone) / 3, rtol=0, atol=1e-6)


def test_spatial_bridge_keeps_the_place(torch, network, maps):
    """What changes in one corner of the slice changes the token and the quality there most."""
    changed = maps.clone()
    changed[:, :, 28:, :4] += 3.0

    with torch.inference_mode():
        (member,) = network.members
        of_tokens = member.tokens(network.describe(changed))
        of_tokens -= member.tokens(network.describe(maps))
        before, after = (network.readings_from_maps(m)[1] for m in (maps, changed))

    corner = 7 * 8
    assert (of_tokens.norm(dim=-1).flatten(1).argmax(dim=1) == corner).all()
    change = (after - before).abs().mean(dim=0)  # by chance a random head sees little of one slice
    assert change.argmax() == corner
    assert change[7, 0] > 3 * change.mean()


def test_global_bridge_forgets_the_place(torch, module, maps_of):
    """Maps turned round give the same quality behind a global bridge, another behind a spatial."""
    for bridge, same in (("global", True), ("spatial", False)):
        network = module.build(module.NetworkConfig(bridge=bridge))
        maps = maps_of(network)
        with torch.inference_mode():
            change = network.quality_from_maps(maps.flip(2, 3)) - network.quality_from_maps(maps)
        assert (change.abs() < 1e-5).all() == same


def test_parameter_counts(module, config, request):
    """The size printed in cards holds: a change of the architecture does not go unseen."""
    network = module.build(config)

    fitted = parameters(network) - parameters(network.features)

    assert parameters(network.features) == 700_768
    assert fitted == COUNTS[request.node.callspec.params["config"]]


COUNTS = {
    "kan": 676_941,
    "mlp": 472_141,
    "global": 962_381,
    "ordinal": 679_521,
    "no swin": 95_105,
    "wide": 203_397,
    "members": 3 * 676_941,
}


@pytest.mark.parametrize("name", ["kan", "global", "ordinal"])
def test_every_kan_layer_is_wired(torch, kan, module, maps_of, name):
    """Each KAN layer takes part in the output: moving its curves moves u (ct-iqa 1.1's trap)."""
    network = module.build(module.NetworkConfig(**CONFIGS[name]))
    assert len(kan.kan_layers(network)) == 8  # two in each of 2 + 2 blocks
    every_kan_layer_moves_u(network, maps_of(network))


def test_zero_splines_moves_the_quality(torch, kan, module, maps_of):
    """Without its splines a network of large curves scores otherwise, an MLP the same."""
    for name, moves in (("kan", True), ("mlp", False)):
        network = module.build(module.NetworkConfig(**CONFIGS[name]))
        maps = maps_of(network)
        with torch.inference_mode():
            for layer in kan.kan_layers(network):
                layer.coefficients.normal_()
            before = network.quality_from_maps(maps)
            kan.zero_splines(network)
            change = (network.quality_from_maps(maps) - before).abs()
        assert (change > 1e-4).all() == moves


def test_every_trainable_parameter_gets_a_gradient(module, config, maps_of):
    """Nothing in the fitted half is left out of the fit."""
    network = module.build(config)

    network.quality_from_maps(maps_of(network)).sum().backward()

    for name, parameter in network.members.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in network.features.parameters())


def test_state_dict_round_trip(torch, module, config, maps_of):
    """Weights alone carry the network: another build with the same config gives the same u."""
    first, second = module.build(config), module.build(config)
    maps = maps_of(first)
    with torch.inference_mode():
        assert not torch.equal(first.quality_from_maps(maps), second.quality_from_maps(maps))

        second.load_state_dict(first.state_dict(), strict=True)

        assert torch.equal(first.quality_from_maps(maps), second.quality_from_maps(maps))


def test_window_is_part_of_the_network(torch, network):
    """Values beyond -1000..400 HU count as its ends: padding and metal change nothing."""
    hu = torch.full((1, 512, 512), -1000.0)
    hu[:, 100:300, 100:300] = 400.0
    beyond = hu.clone()
    beyond[beyond == -1000.0] = -3024.0
    beyond[beyond == 400.0] = 3071.0

    with torch.inference_mode():
        assert torch.equal(network.maps(hu), network.maps(beyond))


def test_pooling_keeps_the_place(torch):
    """Cell (r, c) of the pooled maps averages its own block of each stride, and no other."""
    from tfkt_node.iqa.bridge import pool_maps

    maps = tuple(torch.zeros(1, 1, size, size) for size in (128, 64, 32))
    for m in maps:
        block = m.shape[-1] // 32
        m[:, :, 5 * block : 6 * block, 9 * block : 10 * block] = 7.0

    pooled = pool_maps(maps)

    assert pooled.shape == (1, 3, 32, 32)
    assert (pooled[0, :, 5, 9] == 7.0).all()
    assert pooled.sum() == 3 * 7.0


def test_spread_stands_beside_each_map(torch):
    """Behind the maps stands the ln of each one's SD over the slice, the same at every place."""
    from tfkt_node.iqa.bridge import with_spreads

    maps = 3 * torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(2))

    described = with_spreads(maps)

    assert described.shape == (2, 8, 32, 32)
    assert torch.equal(described[:, :4], maps)
    expected = maps.flatten(2).std(dim=2, correction=0).log()
    assert torch.allclose(described[:, 4:, 0, 0], expected, atol=1e-5)
    assert (described[:, 4:] == described[:, 4:, :1, :1]).all()
    assert with_spreads(torch.zeros(1, 1, 32, 32)).isfinite().all()


# --- The ordinal head


@pytest.fixture(scope="module")
def heads(torch):
    """tfkt_node.iqa.heads, imported late: it needs torch."""
    from tfkt_node.iqa import heads

    return heads


@pytest.fixture
def ordinal(torch, heads):
    """An ordinal head that passes the logits of 21 channels on as they are."""
    head = heads.OrdinalHead(21)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(21))
        head.linear.bias.zero_()
    return head


def test_ordinal_score_is_the_expected_step(torch, ordinal):
    """Squashed, u of an ordinal head is the mean of the steps, each weighed by its share."""
    from tfkt_node.iqa.uncertainty import squash

    logits = 4 * torch.randn(200, 21, generator=torch.Generator().manual_seed(9))
    logits += torch.linspace(-30, 30, 200)[:, None] * torch.linspace(-1, 1, 21)
    shares = torch.softmax(logits.double(), dim=-1).numpy()
    expected = shares @ np.arange(0, 4.1, 0.2)
    assert expected.min() < 0.01
    assert expected.max() > 3.99

    u = ordinal(logits[:, None, None, :])

    assert np.allclose(squash(u.detach().double().numpy()), expected, rtol=0, atol=1e-5)


def test_unsquash_undoes_squash(torch, heads):
    """u -> score -> u comes back over the whole open scale, the bent ends included."""
    from tfkt_node.iqa.uncertainty import U_ENDS, squash, unsquash

    u = np.linspace(*U_ENDS, 241)
    score = squash(u)
    room = squash(4 - u)  # 4 - score, without the digits that the subtraction loses

    back = heads.unsquash(torch.from_numpy(score), torch.from_numpy(room))

    assert np.allclose(back.numpy(), u, rtol=0, atol=1e-6)
    # The same as that of `uncertainty`, which has but the score and loses digits near 4.
    assert np.allclose(back.numpy()[u < 5], unsquash(score)[u < 5], rtol=0, atol=1e-4)


def test_ordinal_head_is_sure_without_breaking(torch, ordinal):
    """A head that is wholly sure of 0 or 4 gives the ends of the scale, and no NaN."""
    logits = torch.zeros(2, 1, 1, 21)
    logits[0, ..., 0] = logits[1, ..., 20] = 1e4

    assert ordinal(logits).tolist() == [-4.0, 8.0]


def test_ranked_probability_score_by_hand(torch, heads):
    """0 for the right step, by the distance for a wrong one, mixed in between."""
    sure = torch.full((4, 21), -1e4)
    sure[torch.arange(4), torch.tensor([5, 5, 5, 0])] = 0.0
    half = torch.full((1, 21), -1e4)
    half[0, [5, 6]] = 0.0

    losses = heads.ranked_probability_score(sure, torch.tensor([1.0, 1.2, 2.0, 4.0]))
    between = heads.ranked_probability_score(half, torch.tensor([1.1]))

    assert torch.allclose(losses, torch.tensor([0.0, 1 / 20, 5 / 20, 1.0]), atol=1e-6)
    assert between.item() == pytest.approx(0.0, abs=1e-9)


def test_ranked_probability_score_teaches_the_score(torch, heads):
    """A head fitted by the loss ends at the score it was taught, between the steps as well."""
    logits = torch.zeros(3, 21, requires_grad=True)
    wanted = torch.tensor([0.0, 1.37, 3.9])
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimiser.zero_grad()
        heads.ranked_probability_score(logits, wanted).sum().backward()
        optimiser.step()

    expected = logits.softmax(dim=-1) @ torch.linspace(0, 4, 21)

    assert torch.allclose(expected, wanted, atol=0.02)


# --- The card


def test_config_round_trip_through_the_card(module, config):
    """The card's table builds the same network again."""
    assert module.NetworkConfig.from_card(config.to_card()) == config


def test_released_config_round_trip(module):
    """The released graph, and the KAN beside it, are described by a card as well."""
    for change in ({}, {"feed_forward": "kan", "ratio": 0.125}):
        table = {**module.RELEASED.to_card(), **change}
        assert module.NetworkConfig.from_card(table).to_card() == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feed_forward": "fourier"}, "feed_forward must be one of .*kan.*: got 'fourier'"),
        ({"family": "tfkt_v9"}, "family must be one of .*: got 'tfkt_v9'"),
        ({"inputs": "colour"}, "inputs must be one of"),
        ({"bridge": "none"}, "bridge must be one of"),
        ({"head": 3}, "head must be one of .*: got 3"),
        ({"dim": 48}, "dim must be a multiple of 32: got 48"),
        ({"dim": "64"}, "dim must be a multiple of 32: got '64'"),
        ({"depths": 2}, "depths must be a list"),
        ({"depths": [2, 0]}, "depths must be 0-5 counts"),
        ({"depths": [1] * 6}, "depths must be 0-5 counts"),
        ({"window": 1}, "window must be 2 or more"),
        ({"ratio": 0}, "ratio must be a positive number"),
        ({"intervals": 2.5}, "intervals must be 1 or more"),
        ({"members": 0}, "members must be 1 or more: got 0"),
        ({"reach": float("nan")}, "reach must be a positive number: got nan"),
        ({"x": 1}, "check: x"),
        ({"family": "tfkt_v2"}, "inputs must be 'wide' in tfkt_v2"),
    ],
)
def test_config_refuses_what_it_cannot_build(module, change, message):
    """An architecture of another version is named, not guessed."""
    with pytest.raises(ValueError, match=message):
        module.NetworkConfig.from_card({**module.NetworkConfig().to_card(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bridge": "spatial"}, "bridge must be 'global' in tfkt_v2"),
        ({"head": "ordinal"}, "head must be 'scalar' in tfkt_v2"),
        ({"depths": (2, 2, 6, 2)}, "depths must be .* in tfkt_v2"),
        ({"ratio": 2.0}, "ratio must be 4 in tfkt_v2"),
        ({"members": 3}, "members must be 1 in tfkt_v2"),
    ],
)
def test_released_graph_has_one_shape(module, change, message):
    """tfkt_v2 means the released graph and no variation of it."""
    with pytest.raises(ValueError, match=message):
        module.NetworkConfig.from_card({**module.RELEASED.to_card(), **change})


def test_config_refuses_a_missing_entry(module):
    """No default stands in for what the card does not say."""
    table = module.NetworkConfig().to_card()
    del table["reach"]

    with pytest.raises(ValueError, match="reach"):
        module.NetworkConfig.from_card(table)
