"""Every constant of a training run, as it is written into the bundle's recipe.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tfkt_node.records import Misconfigured


@dataclass(frozen=True, slots=True)
class Recipe:
    """The constants of a run; the same recipe and data give the same bundle on one machine.

    Doses are fractions of the dose a slice was taken with. thinned: (views, dose) pairs.
    held_out_smoother is used on calibration and test patients only.
    """

    seed: int = 2026
    # --- data
    left_out_prefix: str = "MIDRC-"
    slices_per_patient: int = 6
    calibration_patients: int = 15
    test_patients: int = 13
    # --- simulation
    draws: int = 2
    doses: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8, 1 / 10, 1 / 16, 1 / 32)
    thinned: tuple[tuple[int, float], ...] = ((240, 1.0), (180, 1.0), (144, 1 / 2), (120, 1 / 4))
    smoothed: tuple[float, ...] = (1.0, 1 / 4, 1 / 8, 1 / 16)
    held_out_smoother: str = "median"
    # --- fit
    feed_forward: str = "kan"
    epochs: int = 10
    batch: int = 16
    rate: float = 1e-3
    warm_up: float = 0.2
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    loss_bend: float = 0.3
    # --- interval
    coverage: float = 0.9

    def to_table(self) -> dict[str, Any]:
        """Return plain values, as TOML and JSON hold them."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def from_table(table: Mapping[str, Any]) -> Recipe:
    """Read a recipe's table; raises Misconfigured for an unknown name."""
    known = {field.name for field in fields(Recipe)}
    odd = sorted(set(table) - known)
    if odd:
        raise Misconfigured(f"recipe: {', '.join(odd)} is not known; known: {sorted(known)}")
    return Recipe(**{key: _frozen(value) for key, value in table.items()})


def read(path: Path) -> Recipe:
    """Read the [recipe] table of a bundle's recipe.toml; raises Misconfigured when it cannot."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured(f"{path}: cannot be read ({type(error).__name__})") from error
    return from_table(document.get("recipe", {}))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
