"""A bundle of random weights, made once; its network is as untrained as its card says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tfkt_node.iqa.bundle import Bundle
from tfkt_node.iqa.feature_distance import fit
from tfkt_node.iqa.uncertainty import Calibration


@pytest.fixture(scope="session")
def torch(require_module) -> ModuleType:
    """The module torch, imported by the tests that need it and not while others are collected."""
    require_module("torch")
    import torch

    return torch


@pytest.fixture(scope="session")
def torchvision(torch) -> ModuleType:
    """The module torchvision, also where its wheel was built for another torch.

    Only its networks in Python are used; timm's import brings the guard.
    """
    from tfkt_node.iqa.timm_import import import_timm

    import_timm()
    import torchvision

    return torchvision


@pytest.fixture(scope="session")
def kan(torch) -> ModuleType:
    """tfkt_node.iqa.efficient_kan, imported late: it needs torch."""
    from tfkt_node.iqa import efficient_kan

    return efficient_kan


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory, torch) -> Bundle:
    """Bundle of a KAN network with random weights, written and loaded again."""
    from tfkt_node.iqa.network import NetworkConfig, build
    from tfkt_node.training.bundles.export import Description, golden_slices, write_bundle

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build(NetworkConfig())
    description = Description(
        summary="for tests",
        name="random",
        version="0",
        scope={"body_parts": ["ABDOMEN"]},
        calibration=Calibration(slope=1.0, shift=0.0, below=0.5, above=0.7, coverage=0.9),
        data={"note": "none: the weights are random"},
        figures=({"name": "none", "value": 0.0, "command": "none"},),
        readme="# Random weights\n",
        recipe="seed = 3\n",
    )
    folder = Path(tmp_path_factory.mktemp("bundles")) / "random"
    vectors = np.random.default_rng(3).normal(size=(40, network.features.channels))
    distance = fit(
        vectors.astype(np.float32), [f"P{number % 10}" for number in range(40)], range(40)
    )
    return write_bundle(folder, network, description, golden_slices(), distance)
