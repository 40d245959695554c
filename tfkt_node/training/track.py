"""How a long step shows its progress, without knowing who looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
    """Passes on what it is given; `total` says how many will come."""

    def __call__(self, items: Iterable[Item], total: int, description: str) -> Iterable[Item]:
        """Yield the items, in order."""
        ...


def untracked(items: Iterable[Item], total: int, description: str) -> Iterable[Item]:
    """Pass on the items and show nothing."""
    return items
