"""Whether every KAN layer of a network takes part in its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tfkt_node.iqa.network import Network


def every_kan_layer_moves_u(network: Network, maps: Tensor) -> None:
    """Move the curves of one layer at a time: u moves, and comes back with them."""
    import torch

    from tfkt_node.iqa.efficient_kan import kan_layers

    with torch.inference_mode():
        before = network.quality_from_maps(maps)
        for layer in kan_layers(network):
            kept = layer.coefficients.clone()
            layer.coefficients += torch.randn_like(kept)
            moved = (network.quality_from_maps(maps) - before).abs().min()
            layer.coefficients.copy_(kept)
            assert moved > 1e-5
        assert torch.equal(before, network.quality_from_maps(maps))
