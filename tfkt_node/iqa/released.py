"""Weights of TFKT V2 under the names that its authors' code gives them.

Their modules are torchvision's `efficientnet_v2_l` and `swin_v2_b` (ct-iqa 1.5); here both come
from timm. Every tensor is mapped by name, none by its place in the file, and none is guessed.
No weights are published: whoever has a checkpoint knows its terms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tfkt_node.iqa.network import Network

OUTSIDE_BLOCKS = {
    "features.conv_stem": "effnetv2l.features.0.0",
    "features.bn1": "effnetv2l.features.0.1",
    "features.conv_head": "effnetv2l.features.8.0",
    "features.bn2": "effnetv2l.features.8.1",
    "bridge.linear": "effnetv2l.classifier.1",
    "bridge.embed": "swinv2b.features.0.0",
    "bridge.norm": "swinv2b.features.0.2",
    "swin.norm": "swinv2b.norm",
    "head.linear": "swinv2b.head",
}
FIRST_STAGE = {"conv": "0.0", "bn1": "0.1"}
FUSED_STAGE = {"conv_exp": "0.0", "bn1": "0.1", "conv_pwl": "1.0", "bn2": "1.1"}
SQUEEZED_STAGE = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "se.conv_reduce": "2.fc1",
    "se.conv_expand": "2.fc2",
    "conv_pwl": "3.0",
    "bn3": "3.1",
}
CNN_STAGES = (FIRST_STAGE, FUSED_STAGE, FUSED_STAGE, *[SQUEEZED_STAGE] * 4)
SWIN_BLOCK = {
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "attn.q_bias": "attn.qkv.bias",
    "attn.v_bias": "attn.qkv.bias",
}
"""What a block of the Swin calls otherwise; the rest has the same name."""

BESIDE = re.compile(r"\.mlp\.(kan|gate)\b")
"""The KAN beside the MLP, which no checkpoint knows."""

COMPUTED = ("relative_coords_table", "relative_position_index")
"""Tables that follow from the size of a window; a checkpoint holds them all the same."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint, (name, tensor), on the CPU. Code in the file is never run.

    Saved from `DataParallel`, every name has the prefix `module.`, which is taken off. Raises
    ValueError when the file holds anything but named tensors, OSError when it cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Rubbish raises whatever its first bytes happen to say to the unpickler.
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file cannot be read; torch's own complaint of half a file names none
        raise ValueError(
            f"{path} is no checkpoint of plain tensors ({type(error).__name__}); save the "
            "state_dict of the model with torch.save"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        names = state if isinstance(state, Mapping) else ()
        inner = [name for name in ("state_dict", "model") if name in names]
        hint = f"; it may stand under {inner[0]!r}: save that alone" if inner else ""
        raise ValueError(f"{path} must hold a state_dict, names and tensors{hint}")
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def load_released(network: Network, state: Mapping[str, Tensor]) -> None:
    """Fill a network of the family tfkt_v2 with weights under the released names, in place.

    Names and shapes are checked one by one before anything is set; a KAN beside the MLP is left
    as it is. The biases of the keys are dropped: torchvision zeroes them whenever it computes.
    Raises ValueError for another family, and for a name or shape that does not fit. That the names
    fit does not say that the weights were fitted in this graph: the class `EffNetV2LSwinV2B` has
    the same names and feeds its Swin another input.
    """
    if network.config.family != "tfkt_v2":
        raise ValueError(f"released weights fit tfkt_v2: got {network.config.family}")
    own = {n: t for n, t in network.state_dict().items() if not BESIDE.search(n)}
    tables = {
        _released_name(name): table
        for name, table in network.named_buffers()
        if name.endswith(COMPUTED)
    }
    wanted = {_released_name(name): tuple(tensor.shape) for name, tensor in own.items()}
    wanted |= {n: (3 * shape[0],) for n, shape in wanted.items() if n.endswith(".qkv.bias")}
    wanted |= {n: _table_shape(table) for n, table in tables.items()}
    _check(wanted, state)
    for name, table in tables.items():
        if not torch.allclose(state[name], table.reshape(state[name].shape)):
            raise ValueError(f"checkpoint: {name} belongs to windows of another size")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(_part(name, state[_released_name(name)]))


def _check(wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    for what, names in (
        ("is missing", [name for name in wanted if name not in state]),
        ("is not part of tfkt_v2", [name for name in state if name not in wanted]),
    ):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"checkpoint: {names[0]} {what}{more}")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            got = tuple(state[name].shape)
            raise ValueError(f"checkpoint: {name} must have the shape {shape}: got {got}")


def _part(name: str, tensor: Tensor) -> Tensor:
    """Return what of a released tensor is ours: the biases of queries, keys, values are one."""
    if name.endswith("q_bias"):
        return tensor.chunk(3)[0]
    return tensor.chunk(3)[2] if name.endswith("v_bias") else tensor


def _table_shape(table: Tensor) -> tuple[int, ...]:
    """Return the shape in the checkpoint, where the index (64, 64) is flat."""
    return tuple(table.shape) if table.is_floating_point() else (table.numel(),)


def _released_name(name: str) -> str:
    """Return the released name of one of our tensors; KeyError for what has none."""
    name = name.removeprefix("members.0.")
    layer, _, tensor = name.rpartition(".")
    if name.startswith("features.blocks."):
        _, _, stage, block, part = layer.split(".", 4)
        place = CNN_STAGES[int(stage)][part]
        return f"effnetv2l.features.{int(stage) + 1}.{block}.block.{place}.{tensor}"
    if not name.startswith("swin.stages."):
        return f"{OUTSIDE_BLOCKS[layer]}.{tensor}"
    _, _, stage, kind, rest = name.split(".", 4)
    if kind == "downsample":
        return f"swinv2b.features.{2 * int(stage)}.{rest}"
    block, _, rest = rest.partition(".")
    for ours, theirs in SWIN_BLOCK.items():
        rest = rest.replace(ours, theirs)
    return f"swinv2b.features.{2 * int(stage) + 1}.{block}.{rest}"
