"""The wheel holds all that serving needs: bundle, settings file, migrations, schema."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.station


@pytest.fixture(scope="module")
def unpacked(
    tmp_path_factory: pytest.TempPathFactory, require_module: Callable[[str], None]
) -> Path:
    """The built wheel, unpacked into a folder that has no source tree above it."""
    require_module("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", str(folder), str(ROOT)],
        check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize(
    "name",
    [
        "_data/config/tfkt_node.toml",
        "_data/models/tfkt-v2-lite/card.toml",
        "audit/migrations/env.py",
        "cli/score.schema.json",
    ],
)
def test_wheel_holds(name: str, unpacked: Path) -> None:
    assert (unpacked / "tfkt_node" / name).is_file()


def test_score_works_on_the_packed_bundle(unpacked: Path, shared_data: Path) -> None:
    """The command scores with the bundle that came with the package, away from the source tree."""
    series = shared_data / "series" / "LungFCP-01-0001"

    done = subprocess.run(
        [sys.executable, "-m", "tfkt_node", "score", "--json", str(series)],
        cwd=unpacked,
        env=os.environ | {"PYTHONPATH": str(unpacked), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert '"outcome": "ASSESSED"' in done.stdout
