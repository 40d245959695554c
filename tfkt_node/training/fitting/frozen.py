"""The frozen features, run by OpenVINO: three times as fast as torch on a CPU.

They do not change while the rest is fitted, so each version goes through them once and its maps
are kept in a file. The file grows in order; a run that was stopped goes on at its end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from tfkt_node.iqa.bridge import pool_maps
from tfkt_node.iqa.bundle import GRID
from tfkt_node.iqa.engine import import_openvino
from tfkt_node.iqa.features import EfficientNetLite0, Inputs
from tfkt_node.records import FloatArray
from tfkt_node.training import dataset
from tfkt_node.training.fitting.imagenet import load_imagenet
from tfkt_node.training.simulation.presentation import presented
from tfkt_node.training.track import Track

HalfArray = npt.NDArray[np.float16]
MAP_ROWS = 32


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """Which features: what they see, and a file of weights, or ImageNet's where None."""

    inputs: Inputs
    weights: Path | None = None

    @property
    def name(self) -> str:
        """Return a name for files: what it sees, and where its weights come from."""
        return f"{self.inputs}-{self.weights.stem if self.weights else 'imagenet'}"


def build_features(choice: FeatureChoice) -> EfficientNetLite0:
    """Return the chosen features, filled, in evaluation mode."""
    features = EfficientNetLite0(choice.inputs).eval()
    if choice.weights is None:
        load_imagenet(features)
    else:
        features.load_state_dict(torch.load(choice.weights, weights_only=True))
    return features


def maps(
    work: Path, choice: FeatureChoice, workers: int, track: Track, *, otherwise: bool = False
) -> HalfArray:
    """Return the maps of all versions in `work`: (n, C, 32, 32) float16, mapped from a file.

    otherwise: of the versions as `presentation.presented` turns and surrounds them.
    """
    versions = dataset.load(work)
    channels = EfficientNetLite0(choice.inputs).channels
    shape = (len(versions.rows), channels, MAP_ROWS, MAP_ROWS)
    size = 2 * int(np.prod(shape[1:]))
    path = work / f"maps-{choice.name}{'-otherwise' if otherwise else ''}.f16"
    done = path.stat().st_size // size if path.is_file() else 0
    left = range(done, len(versions.rows))
    if left:
        with path.open("ab") as file:
            file.truncate(done * size)
            opener = _open_otherwise if otherwise else open_features
            everything = dataset.each(work, left, workers, opener, choice)
            for made in track(everything, len(left), "Feature maps"):
                file.write(made.tobytes())
    return np.memmap(path, np.float16, "r", shape=shape)


@dataclass(frozen=True, slots=True)
class Maps:
    """Maps of all versions, as they are and as they are presented otherwise; see `maps`."""

    plain: HalfArray
    otherwise: HalfArray


def both_maps(work: Path, choice: FeatureChoice, workers: int, track: Track) -> Maps:
    """Return the maps of all versions in `work`, as they are and otherwise."""
    return Maps(
        maps(work, choice, workers, track),
        maps(work, choice, workers, track, otherwise=True),
    )


class _Maps(nn.Module):
    def __init__(self, features: EfficientNetLite0) -> None:
        super().__init__()
        self.features = features

    def forward(self, hu: Tensor) -> Tensor:
        return pool_maps(self.features(hu))


def open_features(choice: FeatureChoice) -> Callable[[FloatArray], HalfArray]:
    """Return a function from a slice (512, 512) float32 HU to its maps (C, 32, 32) float16.

    One thread, fp32 inside.
    """
    openvino = import_openvino()

    with torch.no_grad(), warnings.catch_warnings():
        # As in `export`: tracing is called outdated, and the fixed sizes are meant.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        graph = openvino.convert_model(
            _Maps(build_features(choice)),
            example_input=torch.zeros(1, GRID, GRID),
            input=[1, GRID, GRID],
        )
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
    }
    compiled = openvino.Core().compile_model(graph, "CPU", settings)

    def maps_of(hu: FloatArray) -> HalfArray:
        return np.asarray(compiled(hu[None])[0][0], np.float16)

    return maps_of


def _open_otherwise(choice: FeatureChoice) -> Callable[[FloatArray], HalfArray]:
    maps_of = open_features(choice)
    return lambda hu: maps_of(presented(hu))
