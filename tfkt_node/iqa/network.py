"""The network: features F -> bridge C -> Swin S -> head, from HU to raw quality u.

Everything that decides a number is part of the graph, the HU window included, so that every engine
takes Hounsfield units. Torch lives here and in training; the OpenVINO engine runs the exported
graph and never imports this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional

from tfkt_node.iqa.bridge import (
    TOKENS,
    GlobalBridge,
    SpatialBridge,
    Standard,
    pool_maps,
    with_spreads,
)
from tfkt_node.iqa.efficient_kan import KanFeedForward
from tfkt_node.iqa.efficientnet_v2 import EfficientNetV2L
from tfkt_node.iqa.features import EfficientNetLite0, Inputs
from tfkt_node.iqa.heads import OrdinalHead, ScalarHead
from tfkt_node.iqa.swin_kat import HEAD_WIDTH, GatedKanFeedForward, MlpFeedForward, SwinKat

LOCAL = 8
"""Rows and columns of the local quality: one cell is 64 x 64 pixels of the slice."""

RELEASED_MLP_RATIO = 4.0
RELEASED_SIDE = 64
LITE_SIDE = 32
"""Side of the picture of a global bridge."""


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


RELEASED_SHAPE: Mapping[str, Any] = {
    "inputs": "wide",
    "bridge": "global",
    "head": "scalar",
    "dim": 128,
    "depths": (2, 2, 18, 2),
    "window": 8,
    "members": 1,
}


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a network is built from; table [architecture] of the card.

    inputs: what the features see of a slice (`features.Inputs`). dim: channels d of a token.
    depths: blocks of each stage of the Swin; none leaves it out. window: tokens along a side.
    ratio: hidden width of the feed-forward over d. intervals, reach: the grid of the KAN layers
    (G intervals over -reach..reach, where `rescale` has not moved it), unused by an MLP. members:
    networks behind the same features whose mean is the quality.

    The family tfkt_v2 is the released graph (`RELEASED`), in which only the feed-forward may be
    "kan": then the KAN stands beside the MLP, and ratio is the KAN's. It has one member.

    Raises ValueError for what this version cannot build.
    """

    family: Literal["tfkt_v2_lite", "tfkt_v2"] = "tfkt_v2_lite"
    inputs: Inputs = "bands"
    bridge: Literal["spatial", "global"] = "spatial"
    feed_forward: Literal["kan", "mlp"] = "kan"
    head: Literal["scalar", "ordinal"] = "scalar"
    dim: int = 64
    depths: tuple[int, ...] = (2, 2)
    window: int = 8
    ratio: float = 0.5
    intervals: int = 5
    reach: float = 2.0
    members: int = 1

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(NetworkConfig).items():
            if get_origin(kind) is Literal:
                choices = get_args(kind)
                self._need(name, getattr(self, name) in choices, f"one of {choices}")
        self._need("dim", _count(self.dim) and self.dim % HEAD_WIDTH == 0, "a multiple of 32")
        self._need("depths", len(self.depths) <= 5 and all(map(_count, self.depths)), "0-5 counts")
        self._need("window", _count(self.window) and self.window > 1, "2 or more")
        self._need("ratio", _positive(self.ratio), "a positive number")
        self._need("intervals", _count(self.intervals), "1 or more")
        self._need("reach", _positive(self.reach), "a positive number")
        self._need("members", _count(self.members), "1 or more")
        if self.family == "tfkt_v2":
            for name, value in RELEASED_SHAPE.items():
                self._need(name, getattr(self, name) == value, f"{value!r} in tfkt_v2")
            if self.feed_forward == "mlp":
                self._need("ratio", self.ratio == RELEASED_MLP_RATIO, "4 in tfkt_v2 with mlp")

    def _need(self, name: str, good: bool, needed: str) -> None:
        if not good:
            raise ValueError(
                f"[architecture] {name} must be {needed}: got {getattr(self, name)!r}; "
                "this version of tfkt-node builds no other"
            )

    @classmethod
    def from_card(cls, table: Mapping[str, Any]) -> NetworkConfig:
        """Read the table [architecture]; raises ValueError for what this version cannot build."""
        known = {field.name for field in fields(cls)}
        if set(table) != known:
            odd = ", ".join(sorted(set(table) ^ known))
            raise ValueError(f"[architecture] must hold {', '.join(sorted(known))}; check: {odd}")
        if not isinstance(table["depths"], list | tuple):
            raise ValueError(f"[architecture] depths must be a list: got {table['depths']!r}")
        return cls(**{**table, "depths": tuple(table["depths"])})

    def to_card(self) -> dict[str, Any]:
        """Return the table [architecture]."""
        return {**asdict(self), "depths": list(self.depths)}


RELEASED = NetworkConfig(
    family="tfkt_v2", feed_forward="mlp", ratio=RELEASED_MLP_RATIO, **RELEASED_SHAPE
)
"""TFKT V2 as its authors released it (ct-iqa 1.2): 209,371,417 parameters."""


class Member(nn.Module):
    """What is fitted: bridge, Swin and head, from described maps to raw quality."""

    bridge: SpatialBridge | GlobalBridge
    head: ScalarHead | OrdinalHead

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        if config.bridge == "spatial":
            self.bridge = SpatialBridge(channels, config.dim)
        else:
            side = RELEASED_SIDE if config.family == "tfkt_v2" else LITE_SIDE
            self.bridge = GlobalBridge(channels, config.dim, side)
        self.swin = SwinKat(config.dim, config.depths, config.window, TOKENS, self._feed_forward)
        head = ScalarHead if config.head == "scalar" else OrdinalHead
        self.head = head(self.swin.out_dim)

    def _feed_forward(self, dim: int) -> nn.Module:
        config = self.config
        hidden = round(dim * config.ratio)
        if config.feed_forward == "mlp":
            return MlpFeedForward(dim, hidden)
        kan = KanFeedForward(dim, hidden, config.intervals, config.reach)
        if config.family == "tfkt_v2_lite":
            return kan
        return GatedKanFeedForward(dim, round(dim * RELEASED_MLP_RATIO), kan)

    def tokens(self, described: Tensor) -> Tensor:
        """Map what `Network.describe` returns to the tokens of the last stage.

        (n, channels, 32, 32) to (n, rows, columns, d).
        """
        tokens: Tensor = self.swin(self.bridge(described))
        return tokens

    def forward(self, described: Tensor) -> tuple[Tensor, Tensor]:
        """Map what `Network.describe` returns to (u (n,), local (n, 8, 8))."""
        tokens = self.tokens(described)
        quality: Tensor = self.head(tokens)
        if isinstance(self.bridge, SpatialBridge) and isinstance(self.head, ScalarHead):
            local = functional.adaptive_avg_pool2d(self.head.local(tokens), LOCAL)
        else:
            local = quality[:, None, None].expand(-1, LOCAL, LOCAL)
        return quality, local


class Network(nn.Module):
    """HU in, raw quality out. `maps` and `quality_from_maps` are its two halves.

    The first half carries the weights of natural images and is frozen while the second is fitted,
    so that training computes the maps of a slice once. The second may have several members, fitted
    from different seeds: their mean errs less than they do one by one.
    """

    features: EfficientNetLite0 | EfficientNetV2L
    members: nn.ModuleList
    """Each a `Member`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        released = config.family == "tfkt_v2"
        self.features = EfficientNetV2L() if released else EfficientNetLite0(config.inputs)
        # Of tfkt_v2_lite: the maps, and the spread of each.
        channels = self.features.channels if released else 2 * self.features.channels
        self.standard = nn.Identity() if released else Standard(channels)
        self.members = nn.ModuleList(Member(config, channels) for _ in range(config.members))

    def maps(self, hu: Tensor) -> Tensor:
        """Map (n, 512, 512) float32, HU, to pooled feature maps, (n, channels, 32, 32).

        Of tfkt_v2: (n, 1280, 16, 16).
        """
        return pool_maps(self.features(hu))

    def describe(self, maps: Tensor) -> Tensor:
        """Map pooled feature maps to what the members take, (n, 2 channels, 32, 32).

        The maps and the spread of each, brought to mean 0 and SD 1. Of tfkt_v2: the maps as they
        are.
        """
        released = self.config.family == "tfkt_v2"
        described: Tensor = self.standard(maps if released else with_spreads(maps))
        return described

    def readings_from_maps(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pooled feature maps to (u, local, pooled); see `readings`."""
        described = self.describe(maps)
        said = zip(*(member(described) for member in self.members), strict=True)
        quality, local = (torch.stack(each).mean(dim=0) for each in said)
        return quality, local, maps.mean(dim=(2, 3))

    def quality_from_maps(self, maps: Tensor) -> Tensor:
        """Map pooled feature maps to raw quality u, (n,)."""
        return self.readings_from_maps(maps)[0]

    def readings(self, hu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, 512, 512) float32, HU, to (u (n,), local (n, 8, 8), pooled (n, channels)).

        local: the quality at each place, whose mean is u; the same everywhere where the bridge or
        the head knows no places. pooled: mean of the maps over the slice.
        """
        return self.readings_from_maps(self.maps(hu))

    def forward(self, hu: Tensor) -> Tensor:
        """Map (n, 512, 512) float32, HU, to raw quality u on an open scale, (n,)."""
        return self.quality_from_maps(self.maps(hu))


def build(config: NetworkConfig) -> Network:
    """Build the network with random weights, in evaluation mode."""
    return Network(config).eval()
