"""Every constant of a training run, as it is written into the bundle's recipe.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from tfkt_node.records import Misconfigured

Features = Literal["imagenet", "opinion"]
"""What the features were trained on: ImageNet, or ImageNet and then opinion scores (phase 1)."""


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What is simulated from each clean slice. Table [data].

    left_out_prefix: patients that are not used (their terms forbid it). doses: fractions of the
    dose a slice was taken with; each slice varies them all by one factor of up to dose_jitter.
    views: range of the views of a thinned scan; thinned: the dose of each thinned version.
    smoothed: doses that are smoothed, each time with another filter. tested_smoothed: filters that
    are never fitted to, with doses. artefacts: draws of each of motion, metal and starved rays.
    child_doses: doses of a child-size body. folds: parts of the patients, each tested on a network
    that never saw it.
    """

    seed: int = 2026
    left_out_prefix: str = "MIDRC-"
    slices_per_patient: int = 4
    folds: int = 5
    doses: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
    dose_jitter: float = 1.22
    views: tuple[int, int] = (60, 360)
    thinned: tuple[float, ...] = (1.0, 1.0, 1 / 2, 1 / 4, 1 / 8)
    smoothed: tuple[float, ...] = (
        *(1.0, 1.0, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4),
        *(1 / 8, 1 / 8, 1 / 8, 1 / 16, 1 / 16),
    )
    tested_smoothed: tuple[tuple[str, float], ...] = (("median", 1 / 4), ("median", 1 / 8))
    artefacts: int = 2
    child_doses: tuple[float, ...] = (1 / 2, 1 / 8)


@dataclass(frozen=True, slots=True)
class FitRecipe:
    """How bridge, Swin and head are fitted. Table [fit].

    A batch holds `versions` versions of each of `slices` slices: the loss looks at u, and with the
    weight `difference` at the differences of u within a slice. seeds: fits that differ in the seed
    alone, `seed` and those after it; what ships is their mean. rate: highest learning rate of the
    one-cycle schedule, reached after the warm_up share of the steps. loss_bend: where the smooth
    L1 loss turns from square to line, in points of u. hidden: share of the maps and spreads that
    each step hides: the slices come from few patients. otherwise: share of the versions that each
    step takes turned, or with other things around the body, see `simulation.presentation`.
    """

    seed: int = 1
    seeds: int = 3
    epochs: int = 8
    slices: int = 4
    versions: int = 4
    difference: float = 1.0
    rate: float = 1e-3
    warm_up: float = 0.2
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    loss_bend: float = 0.3
    hidden: float = 0.3
    otherwise: float = 0.5


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """What is fitted: fields of `iqa.network.NetworkConfig`, and the features. Table [network]."""

    features: Features = "imagenet"
    inputs: Literal["wide", "windows", "bands"] = "bands"
    bridge: Literal["spatial", "global"] = "spatial"
    feed_forward: Literal["kan", "mlp"] = "kan"
    head: Literal["scalar", "ordinal"] = "scalar"
    dim: int = 32
    depths: tuple[int, ...] = (2, 2)
    ratio: float = 0.5


@dataclass(frozen=True, slots=True)
class NaturalRecipe:
    """How the last blocks learn from opinions, see `fitting.phase_one`. Table [natural].

    enrich: add noise, blur and JPEG simulated on the references. window_hu: where luminance 0 and
    255 are put; in the soft-tissue window, contrast and noise of an image lie where those of a
    slice do. rate, head_rate: highest learning rates of the one-cycle schedule, for the blocks and
    for the head, reached after the warm_up share of the steps. ridge_penalty: of the regression
    that the head starts from. loss_bend: where the smooth L1 loss turns from square to line, on
    the 0..1 of scores.
    """

    seed: int = 1
    enrich: bool = True
    window_hu: tuple[float, float] = (-160.0, 240.0)
    epochs: int = 3
    batch: int = 16
    rate: float = 3e-4
    head_rate: float = 3e-3
    ridge_penalty: float = 300.0
    warm_up: float = 0.2
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    loss_bend: float = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """The constants of a run: the same recipe and data give the same bundle on one machine.

    coverage: level of the score's interval.
    """

    coverage: float = 0.9
    data: DataRecipe = field(default_factory=DataRecipe)
    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    fit: FitRecipe = field(default_factory=FitRecipe)
    natural: NaturalRecipe = field(default_factory=NaturalRecipe)

    def to_table(self) -> dict[str, Any]:
        """Return plain values, as TOML and JSON hold them."""
        table: dict[str, Any] = _plain(asdict(self))
        return table


def read(path: Path) -> Recipe:
    """Read a recipe.toml; raises Misconfigured for a file or a name that is not one's.

    Tables beside [data], [network], [fit] and [natural] tell how a run went and are passed over.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(f"{path}: cannot be read ({type(error).__name__})") from error
    return Recipe(
        coverage=document.get("coverage", Recipe().coverage),
        data=_build(DataRecipe, path, document.get("data", {})),
        network=_build(NetworkRecipe, path, document.get("network", {})),
        fit=_build(FitRecipe, path, document.get("fit", {})),
        natural=_build(NaturalRecipe, path, document.get("natural", {})),
    )


Table = TypeVar("Table", DataRecipe, NetworkRecipe, FitRecipe, NaturalRecipe)


def _build(kind: type[Table], path: Path, table: Mapping[str, Any]) -> Table:
    known = {item.name for item in fields(kind)}
    odd = sorted(set(table) - known)
    if odd:
        raise Misconfigured(
            f"{path}: {', '.join(odd)} is not a constant of a recipe; known: {sorted(known)}"
        )
    return kind(**{key: _frozen(value) for key, value in table.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
