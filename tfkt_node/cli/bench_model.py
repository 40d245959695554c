"""What `tfkt-node bench model` measures, all in one process on the same cores."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import typer

from tfkt_node.assess import Assessor
from tfkt_node.cli import demo_series, intake
from tfkt_node.iqa.bundle import GRAPH, Bundle
from tfkt_node.iqa.engine import (
    Engine,
    OpenVinoEngine,
    Precision,
    Readings,
    import_openvino,
    open_engine,
)
from tfkt_node.iqa.uncertainty import Float64Array, score
from tfkt_node.records import FloatArray, Misconfigured
from tfkt_node.settings import Settings

if TYPE_CHECKING:
    from tfkt_node.iqa.network import Network

MEASURED_S = 5.0
"""Every row runs for at least as long, after a first slice that is not counted."""
MOST_SLICES = 64
RELEASED_SLICES = 4
NEEDS_TRAIN = "needs the extra train: pip install 'tfkt-node[train]'"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured.

    per_second: slices; None: it could not be measured, and the remark says why. is_reference: what
    the others are set against.
    """

    what: str
    per_second: float | None
    remark: str = ""
    is_reference: bool = False


def measure(shipped: Bundle, source: Path | None, scratch: Path) -> Iterator[Row]:
    """Measure the bundle by engine and precision, the whole assess step, the released network.

    source: folder of CT series, of which the largest is taken; None: a simulated one. scratch: gets
    a gigabyte. Raises Misconfigured when the source has nothing to score.
    """
    say("Assessing a series …")
    step = _AssessStep(shipped, open_engine(shipped, "openvino"), largest_series(source, scratch))
    slices = step.slices()
    yield from _openvino_rows(shipped, slices)
    yield _torch_row(shipped, slices)
    yield _step_row(step, slices)
    yield from _released_rows(slices[:RELEASED_SLICES], scratch)


def _step_row(step: _AssessStep, slices: FloatArray) -> Row:
    say("Measuring the whole step …")
    # Once more the network alone, right before: a busy machine slows both alike.
    alone = rate(step.engine.read, slices)
    whole = step.rate()
    return Row(
        "bundle: whole step (decode, scope, score, physics)",
        whole,
        f"openvino {step.engine.precision}; {whole / alone:.2f} of the network alone",
    )


def _openvino_rows(shipped: Bundle, slices: FloatArray) -> Iterator[Row]:
    precisions: tuple[Precision, ...] = ("f32", "bf16")
    scores: dict[Precision, Float64Array] = {}
    for precision in precisions:
        say(f"Measuring the bundle in OpenVINO {precision} …")
        what = f"bundle: openvino {precision}"
        engine = OpenVinoEngine(shipped.folder / GRAPH, cores(), precision)
        if engine.precision != precision:
            yield Row(what, None, f"this processor has no {precision}")
            continue
        scores[precision] = _scores(shipped, engine.quality(slices))
        moved = float(np.abs(scores[precision] - scores["f32"]).max())
        remark = "" if precision == "f32" else f"scores move by {moved:.3f} at most"
        yield Row(what, rate(engine.read, slices), remark)


def _scores(shipped: Bundle, u: Float64Array) -> Float64Array:
    return np.array([score(shipped.calibration, value)[0] for value in u])


def _torch_row(shipped: Bundle, slices: FloatArray) -> Row:
    what = "bundle: torch f32"
    if not _has_torch():
        return Row(what, None, NEEDS_TRAIN)
    say("Measuring the bundle in torch …")
    return Row(what, rate(open_engine(shipped, "torch").read, slices))


def _released_rows(slices: FloatArray, scratch: Path) -> Iterator[Row]:
    """Measure the released network as its authors run it, and by our engine. Weights: random."""
    in_torch = "released TFKT V2: torch f32, one slice at a time"
    in_openvino = "released TFKT V2: openvino"
    if not _has_torch():
        yield Row(in_torch, None, NEEDS_TRAIN)
        yield Row(in_openvino, None, NEEDS_TRAIN)
        return
    from tfkt_node.iqa import network
    from tfkt_node.training.bundles.export import write_graph

    say("Measuring the released network in torch …")
    released = network.build(network.RELEASED)
    yield Row(in_torch, _torch_rate(released, slices), "random weights", is_reference=True)
    say("Converting the released network (a minute) …")
    write_graph(released, scratch / "released.xml")
    del released  # 0.8 GB
    say("Measuring the released network in OpenVINO …")
    engine = OpenVinoEngine(scratch / "released.xml", cores(), "bf16")
    lacking = "" if engine.precision == "bf16" else "; this processor has no bf16"
    yield Row(
        f"{in_openvino} {engine.precision}",
        rate(engine.read, slices),
        f"random weights{lacking}",
    )


def _torch_rate(network: Network, slices: FloatArray) -> float:
    """Return slices a second, one slice at a time on all cores: torch's own way."""
    import torch

    def each(slices: FloatArray) -> None:
        with torch.inference_mode():
            for hu in slices:
                network(torch.from_numpy(hu[None]))

    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        return rate(each, slices)
    finally:
        torch.set_num_threads(threads)


Slices = TypeVar("Slices", FloatArray, "Sequence[Path]")


def rate(read: Callable[[Slices], object], slices: Slices) -> float:
    """Return how many of the slices a second `read` takes in."""
    read(slices[:1])
    passes = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < MEASURED_S or not passes:
        read(slices)
        passes += 1
    return passes * len(slices) / elapsed


class _AssessStep:
    """The assess step on one series, by an engine that keeps what it is given to read."""

    def __init__(self, shipped: Bundle, engine: Engine, series: intake.GivenSeries) -> None:
        self.engine = _Keeping(engine)
        self._assessor = Assessor(Settings(), shipped, self.engine)
        self._series = series

    def slices(self) -> FloatArray:
        """Return the first in-scope slices on the network's grid, (n, 512, 512) HU."""
        self._assess()
        if not self.engine.kept:
            raise Misconfigured("--input: no slice of the largest series is in scope")
        return np.concatenate(self.engine.kept)[:MOST_SLICES]

    def rate(self) -> float:
        """Return slices a second of the step, all slices of the series counted."""
        start = time.perf_counter()
        done = 0
        while not done or time.perf_counter() - start < MEASURED_S:
            done += self._assess()
        return done / (time.perf_counter() - start)

    def _assess(self) -> int:
        found = self._assessor.assess(self._series.instances, self._series.attributes)
        return sum(len(stack.slices) for stack in found.stacks)


class _Keeping:
    """An engine that keeps the first slices it reads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.precision = engine.name, engine.precision
        self.kept: list[FloatArray] = []

    def read(self, slices: FloatArray) -> Readings:
        """See `Engine.read`."""
        if sum(map(len, self.kept)) < MOST_SLICES:
            self.kept.append(slices)
        return self._engine.read(slices)

    def quality(self, slices: FloatArray) -> Float64Array:
        """See `Engine.quality`."""
        return self.read(slices).u


def largest_series(source: Path | None, scratch: Path) -> intake.GivenSeries:
    """Return the largest CT series of a folder, or a simulated one. Raises Misconfigured."""
    if source is None:
        made, _ = demo_series.phantom_series(scratch, datetime.now().astimezone(), lambda n, _: n)
        source = made.paths[0].parent
    files = [intake.read_file(path, scratch) for path in intake.find_files([source])]
    series = intake.group_series(intake.settle_repeats(files))
    if not series:
        raise Misconfigured(f"--input: there is no CT series in {source}")
    return max(series, key=lambda one: len(one.files))


def _has_torch() -> bool:
    return all(find_spec(name) is not None for name in ("torch", "timm", "safetensors"))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Return the processor's name, as OpenVINO reads it."""
    return str(import_openvino().Core().get_property("CPU", "FULL_DEVICE_NAME")).strip()


def say(text: str) -> None:
    """Tell how far it is, where somebody looks."""
    if sys.stderr.isatty():
        typer.echo(text, err=True)
