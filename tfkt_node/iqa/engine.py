"""Engines: what runs a bundle's network, OpenVINO (default, CPU) or torch (extra `torch`).

Promise P12: every engine gives the same u within 0.02 in fp32, and each is held to the bundle's
golden slices when it opens. Both compute in fp32; lower precision is never chosen silently.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from tfkt_node.iqa.bundle import GRAPH, WEIGHTS, Bundle
from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.records import FloatArray, Misconfigured, Permanent

GRID = 512
AIR_HU = -1000.0
GOLDEN_TOLERANCE_U = 0.01
"""Half of what two engines may differ by."""


class Engine(Protocol):
    """Something that gives slices their raw quality."""

    name: str
    precision: str

    def quality(self, slices: FloatArray) -> Float64Array:
        """Map (n, 512, 512) float32, HU, to raw quality u on an open scale, (n,), in order.

        Raises ValueError when the shape is another or a value is not finite.
        """
        ...


def open_engine(
    bundle: Bundle,
    kind: Literal["openvino", "torch"],
    device: Literal["cpu", "cuda"] = "cpu",
    streams: int = 0,
) -> Engine:
    """Open an engine and hold it to the golden slices.

    streams: slices computed at once; 0 means one per core. Raises Misconfigured when a package or
    device is missing, Permanent when the golden slices come out otherwise.
    """
    streams = streams or len(os.sched_getaffinity(0))
    engine: Engine
    if kind == "openvino":
        engine = OpenVinoEngine(bundle.folder / GRAPH, streams)
    else:
        engine = TorchEngine(bundle, device, streams)
    _check_golden(bundle, engine)
    return engine


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which reports every import to its maker.

    A hospital's node calls nobody. OpenVINO does without where that package cannot be imported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


class OpenVinoEngine:
    """The exported graph on the CPU: one slice and one thread a stream, as many streams as asked.

    Batches bring nothing on a CPU (measured); streams do.
    """

    def __init__(self, graph: Path, streams: int) -> None:
        openvino = import_openvino()
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        settings = {
            # Without the hint OpenVINO takes bf16 on CPUs that have it, at 2-9 % in the features.
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
        }
        try:
            model = openvino.Core().compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise Permanent(
                f"{self.name} cannot compile the graph of bundle {graph.parent.name}",
                cure="install the versions of the constraints file, or a bundle made for this one",
            ) from error
        self.precision = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._queue = openvino.AsyncInferQueue(model, streams)

    def quality(self, slices: FloatArray) -> Float64Array:
        """See `Engine.quality`."""
        _check_slices(slices)
        results = np.empty(len(slices))

        def keep(request: Any, index: int) -> None:
            results[index] = request.get_output_tensor().data[0]

        self._queue.set_callback(keep)
        for index, hu in enumerate(slices):
            self._queue.start_async({0: hu[None]}, index)
        self._queue.wait_all()
        return results


class TorchEngine:
    """The network itself, from weights.safetensors, on the CPU or a CUDA device."""

    precision = "f32"

    def __init__(self, bundle: Bundle, device: Literal["cpu", "cuda"], streams: int) -> None:
        try:
            import torch
            from safetensors.torch import load_file

            from tfkt_node.iqa.network import NetworkConfig, build
        except ModuleNotFoundError as error:
            raise Misconfigured(
                f"scoring.engine 'torch' needs the package {error.name}: "
                "pip install 'tfkt-node[torch]', or set scoring.engine to 'openvino'"
            ) from error
        if device == "cuda" and not torch.cuda.is_available():
            raise Misconfigured(
                "scoring.device 'cuda': torch finds no CUDA device; set scoring.device to 'cpu'"
            )
        try:
            network = build(NetworkConfig.from_card(bundle.card["architecture"]))
            network.load_state_dict(load_file(bundle.folder / WEIGHTS))
        except (ValueError, RuntimeError) as error:
            raise Permanent(
                f"bundle {bundle.name}: the network cannot be built from its card: {error}",
                cure="use a version of tfkt-node that the bundle was made for",
            ) from error
        self.name = f"torch {torch.__version__} {device}"
        self._network = network.to(device)
        self._device = device
        self._batch, self._workers = (1, streams) if device == "cpu" else (16, 1)
        # One slice and one thread a stream, as in OpenVINO: torch's own threads wait on one another
        # and collapse beside any other load.
        torch.set_num_threads(1)
        # TF32 keeps 10 bits of the mantissa: too few for scores that engines must agree on.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    def quality(self, slices: FloatArray) -> Float64Array:
        """See `Engine.quality`."""
        _check_slices(slices)
        batches = [slices[i : i + self._batch] for i in range(0, len(slices), self._batch)]
        with ThreadPoolExecutor(self._workers) as pool:
            parts = list(pool.map(self._quality_of_batch, batches))
        return np.concatenate(parts) if parts else np.empty(0)

    def _quality_of_batch(self, slices: FloatArray) -> Float64Array:
        import torch

        with torch.inference_mode():  # of this thread only
            hu = torch.from_numpy(slices).to(self._device)
            quality: Float64Array = self._network(hu).double().cpu().numpy()
        return quality


def fit_to_grid(hu: FloatArray) -> FloatArray:
    """Bring a slice of any matrix to the network's (512, 512); float32, HU.

    Smaller: centred on air, values untouched. Larger or not square: first padded with air to a
    square, then averaged over areas, so that the whole field of view stays and noise has the
    coarser pixels' meaning that the network was taught; fine noise is lowered by it, as it would be
    by a reconstruction on 512. Which of these happened follows from rows and columns, which the
    audit keeps.
    """
    side = max(GRID, *hu.shape)
    if hu.shape != (side, side):
        square = np.full((side, side), AIR_HU, dtype=np.float32)
        top, left = ((side - length) // 2 for length in hu.shape)
        square[top : top + hu.shape[0], left : left + hu.shape[1]] = hu
        hu = square
    if side > GRID:
        weights = _area_weights(side)
        hu = (weights @ hu @ weights.T).astype(np.float32)
    return np.ascontiguousarray(hu, dtype=np.float32)


def _area_weights(side: int) -> FloatArray:
    """Return (512, side): the share of each fine pixel in each coarse one; rows sum to 1."""
    edges = np.arange(GRID + 1) * (side / GRID)  # of the coarse pixels, in fine ones
    fine = np.arange(side)
    overlap = np.minimum(edges[1:, None], fine + 1) - np.maximum(edges[:-1, None], fine)
    weights: FloatArray = (np.clip(overlap, 0.0, None) * (GRID / side)).astype(np.float32)
    return weights


def _check_slices(slices: FloatArray) -> None:
    if slices.ndim != 3 or slices.shape[1:] != (GRID, GRID) or slices.dtype != np.float32:
        raise ValueError(
            f"slices must be (n, {GRID}, {GRID}) float32: got {slices.shape} {slices.dtype}"
        )
    if not np.isfinite(slices).all():
        raise ValueError("slices must hold finite values in HU: got NaN or infinity")


def _check_golden(bundle: Bundle, engine: Engine) -> None:
    hu, expected = bundle.golden()
    difference = float(np.abs(engine.quality(hu) - expected).max())
    if not difference <= GOLDEN_TOLERANCE_U:  # also when it is NaN
        raise Permanent(
            f"bundle {bundle.name}: {engine.name} gives the golden slices a quality that differs "
            f"by {difference:.4g}; expected at most {GOLDEN_TOLERANCE_U}",
            cure="install the versions of the constraints file, or a bundle made for this one",
        )
