"""Engines: what runs a bundle's network, OpenVINO (default, CPU) or torch (extra `torch`).

Promise P12: every engine gives the same u within 0.02 in f32 and 0.05 in bf16, and each is held to
the bundle's golden slices when it opens. The card says which precision ships; a lower one is never
chosen silently.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from tfkt_node.iqa.bundle import GRAPH, GRID, WEIGHTS, Bundle
from tfkt_node.iqa.uncertainty import Float64Array
from tfkt_node.records import FloatArray, Misconfigured, Permanent

AIR_HU = -1000.0
LOCAL = (8, 8)
"""Rows and columns of the local quality: one cell is 64 x 64 pixels of the slice."""
Precision = Literal["f32", "bf16"]

GOLDEN_TOLERANCE_U: dict[Precision, float] = {"f32": 0.01, "bf16": 0.05}
"""By how much u may differ from training's, which was computed in f32."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What a network says of n slices, in order.

    u: (n,), raw quality on an open scale. local: (n, 8, 8), u by place, rows and columns as those
    of the slice; its mean is u; the same everywhere where the network knows no places. pooled:
    (n, channels), mean feature maps, by which the scope tells the unfamiliar.
    """

    u: Float64Array
    local: FloatArray
    pooled: FloatArray


class Engine(Protocol):
    """Something that gives slices their raw quality. precision: the one that computes."""

    name: str
    precision: Precision

    def read(self, slices: FloatArray) -> Readings:
        """Read (n, 512, 512) float32, HU.

        Raises ValueError when the shape is another or a value is not finite.
        """
        ...

    def quality(self, slices: FloatArray) -> Float64Array:
        """Return u alone; see `read`."""
        ...


def open_engine(
    bundle: Bundle,
    kind: Literal["openvino", "torch"],
    device: Literal["cpu", "cuda"] = "cpu",
    streams: int = 0,
) -> Engine:
    """Open an engine, in the card's precision, and hold it to the golden slices.

    streams: slices computed at once; 0 means one per core. Where a processor or an engine lacks the
    card's precision it computes in f32, and says so. Raises Misconfigured when a package or device
    is missing, Permanent when the golden slices come out otherwise.
    """
    streams = streams or len(os.sched_getaffinity(0))
    precision = _precision_of(bundle)
    engine: Engine
    if kind == "openvino":
        engine = OpenVinoEngine(bundle.folder / GRAPH, streams, precision)
    else:
        engine = TorchEngine(bundle, device, streams, precision)
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

    def __init__(self, graph: Path, streams: int, precision: Precision = "f32") -> None:
        openvino = import_openvino()
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        settings = {
            # Without the hint OpenVINO takes bf16 by itself on CPUs that have it.
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
        }
        try:
            model = openvino.Core().compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise _unfit(graph.parent.name, f"{self.name} cannot compile the graph") from error
        shapes = [tuple(output.shape) for output in model.outputs]
        if len(shapes) != 3 or shapes[:2] != [(1,), (1, *LOCAL)]:
            raise _unfit(
                graph.parent.name,
                f"the graph gives {shapes}; expected quality (1,), local quality {(1, *LOCAL)} "
                "and pooled maps (1, channels)",
            )
        in_force = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision: Precision = "bf16" if in_force == "bf16" else "f32"
        self._channels = shapes[2][1]
        self._queue = openvino.AsyncInferQueue(model, streams)

    def read(self, slices: FloatArray) -> Readings:
        """See `Engine.read`."""
        _check_slices(slices)
        readings = Readings(
            u=np.empty(len(slices)),
            local=np.empty((len(slices), *LOCAL), np.float32),
            pooled=np.empty((len(slices), self._channels), np.float32),
        )

        def keep(request: Any, index: int) -> None:
            readings.u[index] = request.get_output_tensor(0).data[0]
            readings.local[index] = request.get_output_tensor(1).data[0]
            readings.pooled[index] = request.get_output_tensor(2).data[0]

        self._queue.set_callback(keep)
        for index, hu in enumerate(slices):
            self._queue.start_async({0: hu[None]}, index)
        self._queue.wait_all()
        return readings

    def quality(self, slices: FloatArray) -> Float64Array:
        """See `Engine.quality`."""
        return self.read(slices).u


class TorchEngine:
    """The network itself, from weights.safetensors, on the CPU or a CUDA device.

    bf16 on CUDA only, by autocast; a CPU computes in f32.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: Literal["cpu", "cuda"],
        streams: int,
        precision: Precision = "f32",
    ) -> None:
        try:
            import torch
            from safetensors import SafetensorError
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
        except (ValueError, RuntimeError, SafetensorError) as error:
            raise Permanent(
                f"bundle {bundle.name}: the network cannot be built from its card: {error}",
                cure="use a version of tfkt-node that the bundle was made for",
            ) from error
        self.name = f"torch {torch.__version__} {device}"
        self.precision: Precision = precision if device == "cuda" else "f32"
        self._network = network.to(device)
        self._device = device
        self._batch, self._workers = (1, streams) if device == "cpu" else (16, 1)
        # One slice and one thread a stream, as in OpenVINO: torch's own threads wait on one another
        # and collapse beside any other load.
        torch.set_num_threads(1)
        # TF32 keeps 10 bits of the mantissa: too few for scores that engines must agree on.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False

    def read(self, slices: FloatArray) -> Readings:
        """See `Engine.read`."""
        _check_slices(slices)
        if not len(slices):  # no network takes an empty batch
            some = self.read(np.zeros((1, GRID, GRID), np.float32))
            return Readings(some.u[:0], some.local[:0], some.pooled[:0])
        batches = [slices[i : i + self._batch] for i in range(0, len(slices), self._batch)]
        with ThreadPoolExecutor(self._workers) as pool:
            parts = list(pool.map(self._read_batch, batches))
        u, local, pooled = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Readings(u.astype(np.float64), local, pooled)

    def quality(self, slices: FloatArray) -> Float64Array:
        """See `Engine.quality`."""
        return self.read(slices).u

    def _read_batch(self, slices: FloatArray) -> list[FloatArray]:
        import torch

        lower = self.precision == "bf16"
        # Both modes are of this thread only.
        with torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=lower):
            readings = self._network.readings(torch.from_numpy(slices).to(self._device))
        return [reading.float().cpu().numpy() for reading in readings]


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


def _precision_of(bundle: Bundle) -> Precision:
    named = bundle.card["output"].get("precision", "f32")
    for precision in get_args(Precision):
        if precision == named:
            return precision  # type: ignore[no-any-return]
    raise _unfit(
        bundle.name,
        f"[output] precision must be one of {get_args(Precision)}: got {named!r}",
    )


def _check_golden(bundle: Bundle, engine: Engine) -> None:
    hu, expected = bundle.golden()
    difference = float(np.abs(engine.quality(hu) - expected).max())
    tolerance = GOLDEN_TOLERANCE_U[engine.precision]
    if not difference <= tolerance:  # also when it is NaN
        raise _unfit(
            bundle.name,
            f"{engine.name} gives the golden slices a quality that differs by {difference:.4g}; "
            f"expected at most {tolerance}",
        )


def _unfit(name: str, problem: str) -> Permanent:
    return Permanent(
        f"bundle {name}: {problem}",
        cure="install the versions of the constraints file, or a bundle made for this one",
    )
