"""Every constant of a training run, as it is written into the bundle's recipe.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from tfkt_node.records import Misconfigured


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What is simulated, and who is held out. Table [data].

    left_out_prefix: patients that are not used (their terms forbid it). doses: fractions of the
    dose a slice was taken with. thinned: (views, dose) pairs. smoothed: doses that are smoothed.
    held_out_smoother: used on calibration and test patients only. draws: noise realisations of
    each slice, each with another kernel.
    """

    seed: int = 2026
    left_out_prefix: str = "MIDRC-"
    slices_per_patient: int = 6
    calibration_patients: int = 15
    test_patients: int = 13
    draws: int = 1
    doses: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8, 1 / 10, 1 / 16, 1 / 32)
    thinned: tuple[tuple[int, float], ...] = ((180, 1.0), (144, 1 / 2), (120, 1 / 4))
    smoothed: tuple[float, ...] = (1.0, 1 / 4, 1 / 8)
    held_out_smoother: str = "median"


@dataclass(frozen=True, slots=True)
class FitRecipe:
    """How the head is fitted. Table [fit].

    rate: highest learning rate of the one-cycle schedule, reached after the warm_up share of the
    steps. loss_bend: where the smooth L1 loss turns from square to line, in points of u.
    """

    seed: int = 1
    feed_forward: Literal["kan", "mlp"] = "kan"
    ratio: float = 0.5
    epochs: int = 7
    batch: int = 8
    rate: float = 1e-3
    warm_up: float = 0.2
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    loss_bend: float = 0.3


@dataclass(frozen=True, slots=True)
class Recipe:
    """The constants of a run: the same recipe and data give the same bundle on one machine.

    coverage: level of the score's interval.
    """

    coverage: float = 0.9
    data: DataRecipe = field(default_factory=DataRecipe)
    fit: FitRecipe = field(default_factory=FitRecipe)

    def to_table(self) -> dict[str, Any]:
        """Return plain values, as TOML and JSON hold them."""
        table: dict[str, Any] = _plain(asdict(self))
        return table


def read(path: Path) -> Recipe:
    """Read a recipe.toml; raises Misconfigured for a file or a name that is not one's.

    Tables beside [data] and [fit] tell how a run went and are passed over.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(f"{path}: cannot be read ({type(error).__name__})") from error
    return Recipe(
        coverage=document.get("coverage", Recipe().coverage),
        data=_build(DataRecipe, path, document.get("data", {})),
        fit=_build(FitRecipe, path, document.get("fit", {})),
    )


Table = TypeVar("Table", DataRecipe, FitRecipe)


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
