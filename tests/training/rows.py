"""Rows of a data set whose answers are known by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfkt_node.training.dataset import Row

CLEAN = Row(
    file="a.png",
    patient="a",
    fold=0,
    region="chest",
    kind="clean",
    kernel="soft",
    dose=1.0,
    detail="",
    tested_only=False,
    own=10.0,
    inserted=0.0,
    streaks=0.0,
    transfer=(1.0, 1.0, 1.0),
    u=6.0,
    source_u=6.0,
    noise=10.0,
)


def row(**values: Any) -> Row:
    """A clean slice of patient a, with other values where given."""
    return dataclasses.replace(CLEAN, **values)


def doses(*values: float, **common: Any) -> list[Row]:
    """The clean slice where 1, else its version of that dose."""
    return [row(kind="clean" if dose == 1 else "dose", dose=dose, **common) for dose in values]
