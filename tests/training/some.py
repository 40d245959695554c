"""A few files of a shared folder, as a folder of its own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


def link_some(source: Path, folder: Path, rows: Sequence[dict[str, str]]) -> None:
    """Link the files of these rows of `source`/index.csv into a folder, with an index of them."""
    for row in rows:
        (folder / row["file"]).symlink_to(source / row["file"])
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
