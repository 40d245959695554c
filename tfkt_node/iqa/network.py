"""The network: features F -> bridge C -> Swin S -> head, from HU to raw quality u.

Everything that decides a number is part of the graph, the HU window included, so that every engine
takes Hounsfield units. Torch lives here and in training; the OpenVINO engine runs the exported
graph and never imports this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from torch import Tensor, nn

from tfkt_node.iqa.bridge import MAP_SIZE, SpatialBridge, pool_maps
from tfkt_node.iqa.efficient_kan import KanFeedForward
from tfkt_node.iqa.features import EfficientNetLite0
from tfkt_node.iqa.heads import ScalarHead
from tfkt_node.iqa.swin_kat import SwinKat


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a network is built from; table [architecture] of the card.

    dim: channels d of a token. depths: blocks of each stage. window: tokens along a side.
    ratio: hidden width of the feed-forward over d. intervals, reach: the grid of the KAN layers
    (G intervals over -reach..reach), unused by an MLP.
    """

    family: Literal["tfkt_v2_lite"] = "tfkt_v2_lite"
    feed_forward: Literal["kan", "mlp"] = "kan"
    dim: int = 64
    depths: tuple[int, ...] = (2, 2)
    window: int = 8
    ratio: float = 0.5
    intervals: int = 5
    reach: float = 2.0

    @classmethod
    def from_card(cls, table: Mapping[str, Any]) -> NetworkConfig:
        """Read the table [architecture]; raises ValueError for what this version cannot build."""
        known = {field.name for field in fields(cls)}
        if set(table) != known:
            odd = ", ".join(sorted(set(table) ^ known))
            raise ValueError(f"[architecture] must hold {', '.join(sorted(known))}; check: {odd}")
        if table["family"] != "tfkt_v2_lite" or table["feed_forward"] not in ("kan", "mlp"):
            raise ValueError(
                f"no network {table['family']!r} with feed-forward {table['feed_forward']!r}; "
                "this version builds tfkt_v2_lite with 'kan' or 'mlp'"
            )
        return cls(**{**table, "depths": tuple(table["depths"])})

    def to_card(self) -> dict[str, Any]:
        """Return the table [architecture]."""
        return {**asdict(self), "depths": list(self.depths)}


class Network(nn.Module):
    """HU in, raw quality out. `maps` and `quality_from_maps` are its two halves.

    The first half carries the weights of natural images and is frozen while the second is fitted,
    so that training computes the maps of a slice once.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

        def feed_forward(dim: int) -> nn.Module:
            hidden = round(dim * config.ratio)
            if config.feed_forward == "kan":
                return KanFeedForward(dim, hidden, config.intervals, config.reach)
            return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

        self.features = EfficientNetLite0()
        self.bridge = SpatialBridge(self.features.channels, config.dim)
        size = MAP_SIZE // SpatialBridge.PATCH
        self.swin = SwinKat(config.dim, config.depths, config.window, size, feed_forward)
        self.head = ScalarHead(self.swin.out_dim)

    def maps(self, hu: Tensor) -> Tensor:
        """Map (n, 512, 512) float32, HU, to pooled feature maps (n, 176, 32, 32)."""
        return pool_maps(self.features(hu))

    def quality_from_maps(self, maps: Tensor) -> Tensor:
        """Map (n, 176, 32, 32) to raw quality u, (n,)."""
        tokens = self.bridge(maps)  # (n, 16, 16, d)
        tokens = self.swin(tokens)  # (n, 8, 8, 2 d)
        quality: Tensor = self.head(tokens)  # (n,)
        return quality

    def forward(self, hu: Tensor) -> Tensor:
        """Map (n, 512, 512) float32, HU, to raw quality u on an open scale, (n,)."""
        return self.quality_from_maps(self.maps(hu))


def build(config: NetworkConfig) -> Network:
    """Build the network with random weights, in evaluation mode."""
    return Network(config).eval()
