from __future__ import annotations

import pytest

pytestmark = pytest.mark.station
CONFIGS = {"kan": {}, "mlp": {"feed_forward": "mlp", "ratio": 2.0}}


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
def maps(torch):
    return torch.randn(2, 179, 32, 32, generator=torch.Generator().manual_seed(6))


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_both_halves_make_the_whole(torch, network):
    """Scoring from cached maps gives what scoring the slice gives; shapes are as promised."""
    hu = 300 * torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        maps = network.maps(hu)
        quality = network.quality_from_maps(maps)

        assert maps.shape == (2, 179, 32, 32)
        assert quality.shape == (2,)
        assert torch.equal(quality, network(hu))


def test_parameter_counts(module, config):
    """The size printed in cards holds: a change of the architecture does not go unseen."""
    network = module.build(config)

    fitted = parameters(network) - parameters(network.features)

    assert parameters(network.features) == 700_768
    assert fitted == {"kan": 628_045, "mlp": 423_245}[config.feed_forward]


def test_every_kan_layer_is_wired(torch, network, maps):
    """Each KAN layer takes part in the output: moving its curves moves u (ct-iqa 1.1's trap)."""
    from tfkt_node.iqa.efficient_kan import KanLayer

    layers = [module for module in network.modules() if isinstance(module, KanLayer)]
    assert len(layers) == 8  # two in each of 2 + 2 blocks

    with torch.inference_mode():
        before = network.quality_from_maps(maps)
        for layer in layers:
            kept = layer.coefficients.clone()
            layer.coefficients += torch.randn_like(kept)
            moved = (network.quality_from_maps(maps) - before).abs().min()
            layer.coefficients.copy_(kept)
            assert moved > 1e-4
        assert torch.equal(before, network.quality_from_maps(maps))


def test_every_trainable_parameter_gets_a_gradient(network, maps):
    """Nothing in the fitted half is left out of the fit."""
    network.quality_from_maps(maps).sum().backward()

    for part in (network.bridge, network.swin, network.head):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in network.features.parameters())
    network.zero_grad()


def test_state_dict_round_trip(torch, module, config, maps):
    """Weights alone carry the network: another build with the same config gives the same u."""
    first, second = module.build(config), module.build(config)
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


def test_config_round_trip_through_the_card(module, config):
    """The card's table builds the same network again."""
    assert module.NetworkConfig.from_card(config.to_card()) == config


@pytest.mark.parametrize(
    ("change", "named"),
    [({"feed_forward": "fourier"}, "fourier"), ({"family": "tfkt_v9"}, "tfkt_v9"), ({"x": 1}, "x")],
)
def test_config_refuses_what_it_cannot_build(module, change, named):
    """An architecture of another version is named, not guessed."""
    with pytest.raises(ValueError, match=named):
        module.NetworkConfig.from_card({**module.NetworkConfig().to_card(), **change})


def test_config_refuses_a_missing_entry(module):
    """No default stands in for what the card does not say."""
    table = module.NetworkConfig().to_card()
    del table["reach"]

    with pytest.raises(ValueError, match="reach"):
        module.NetworkConfig.from_card(table)
