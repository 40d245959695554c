"""Write a trained network as a bundle: weights, OpenVINO graph, golden slices, card with hashes."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from tfkt_node.iqa import bundle
from tfkt_node.iqa.bundle import GRID
from tfkt_node.iqa.engine import Precision, import_openvino
from tfkt_node.iqa.feature_distance import FeatureDistance
from tfkt_node.iqa.network import Network
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.records import FloatArray


@dataclass(frozen=True, slots=True)
class Description:
    """What people and the card say of a network.

    summary: one sentence, the card's first line. scope, data: tables of the card. figures: one
    table each, with the command that prints it. readme: Markdown. recipe: TOML, the settings of
    the training run. precision: what engines compute in where they can; bf16 only where scores were
    seen to move by less than 0.05.
    """

    summary: str
    name: str
    version: str
    scope: Mapping[str, Any]
    calibration: Calibration
    data: Mapping[str, Any]
    figures: tuple[Mapping[str, Any], ...]
    readme: str
    recipe: str
    precision: Precision = "f32"


def write_bundle(
    folder: Path,
    network: Network,
    description: Description,
    golden_hu: FloatArray,
    distance: FeatureDistance,
) -> bundle.Bundle:
    """Write all files of a bundle into a folder (made if needed) and load it again.

    golden_hu: (n, 512, 512) float32, HU; a few slices, whole numbers compress best. Their quality
    is computed here in torch, fp32, and every engine is held to it later. distance: of the pooled
    maps of this network, by which the scope tells the unfamiliar.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    network = network.cpu().eval()
    (folder / bundle.WEIGHTS).write_bytes(save(network.state_dict()))
    write_graph(network, folder / bundle.GRAPH)
    with torch.inference_mode():
        quality = [float(network(hu[None])) for hu in torch.from_numpy(golden_hu)]
    np.savez_compressed(folder / bundle.GOLDEN, hu=golden_hu, u=np.array(quality))
    distance.save(folder / bundle.SCOPE)
    (folder / bundle.README).write_text(description.readme, encoding="utf-8")
    (folder / bundle.RECIPE).write_text(description.recipe, encoding="utf-8")
    (folder / bundle.CARD).write_text(_card(folder, network, description), encoding="utf-8")
    return bundle.load(folder)


def golden_slices() -> FloatArray:
    """Return three synthetic slices, (3, 512, 512) float32 HU: a body of water, fat and bone.

    Noise of 8, 30 and 100 HU; the same on every machine and call. Not anatomy: they hold engines
    to one another, they say nothing about quality.
    """
    rows, columns = np.mgrid[:GRID, :GRID]
    radius = np.hypot((rows - 256) / 150, (columns - 256) / 210)
    hu = np.select([radius < 0.9, radius < 1.0], [45.0, -100.0], -1000.0)  # fat under the skin
    hu[np.hypot(rows - 330, columns - 256) < 24] = 390.0
    hu[np.hypot(rows - 220, columns - 170) < 30] = 110.0
    random = np.random.default_rng(20)
    noise = random.standard_normal((3, GRID, GRID)) * np.array([8.0, 30.0, 100.0])[:, None, None]
    return np.where(radius < 1.0, np.round(hu + noise), hu).astype(np.float32)


OUTPUTS = ("u", "local", "pooled")
"""Names of the graph's outputs, in the order of `iqa.engine.Readings`."""


class _Readings(nn.Module):
    """`Network.readings` as a module of its own: what is traced is a module's forward."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (n, 512, 512) float32, HU, to (u, local, pooled)."""
        return self.network.readings(hu)


def write_graph(network: Network, path: Path) -> None:
    """Convert a network for OpenVINO, one slice at a time, and write path and its .bin.

    In f32: weights in half precision would change u in the third digit.
    """
    openvino = import_openvino()

    example = torch.zeros(1, GRID, GRID)
    # Without gradients the KAN layers run their plain formula, which is what can be traced.
    with torch.no_grad(), warnings.catch_warnings():
        # OpenVINO traces, which torch calls outdated; and the tracer warns that sizes become
        # constants: they may, the grid is fixed.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        model = openvino.convert_model(
            _Readings(network), example_input=example, input=[1, GRID, GRID]
        )
    # OpenVINO numbers what it makes from its start on: the same network would give other bytes.
    model.set_friendly_name("tfkt-node")
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    for output, name in zip(model.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(model, path, compress_to_fp16=False)


def _card(folder: Path, network: Network, description: Description) -> str:
    tables: dict[str, Any] = {
        "summary": description.summary,
        "name": description.name,
        "version": description.version,
        "architecture": network.config.to_card(),
        "input": bundle.INPUT,
        "output": {**bundle.OUTPUT, "precision": description.precision},
        "scope": description.scope,
        "calibration": asdict(description.calibration),
        "data": description.data,
        "figures": description.figures,
        "hashes": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in bundle.FILES
        },
    }
    return bundle.seal("\n".join(_toml(tables, ())) + "\n")


def _toml(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Write a table: its plain values, then its tables and arrays of tables, in order given."""
    lines = [f"{_key(k)} = {_value(v)}" for k, v in table.items() if not _is_nested(v)]
    for key, value in table.items():
        if not _is_nested(value):
            continue
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_toml(value, (*path, key))]
        else:
            for item in value:
                lines += ["", f"[[{name}]]", *_toml(item, (*path, key))]
    return lines


def _is_nested(value: object) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _value(value: object) -> str:
    """Write one value. JSON and TOML agree on strings, numbers, booleans and arrays of them."""
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
