"""The fit: the head learns u from feature maps that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tfkt_node.iqa.network import Network, NetworkConfig, build
from tfkt_node.training.collection import Part
from tfkt_node.training.dataset import Dataset, HalfArray
from tfkt_node.training.imagenet import load_imagenet
from tfkt_node.training.recipe import FitRecipe
from tfkt_node.training.track import Track


def fit(dataset: Dataset, recipe: FitRecipe, track: Track) -> Network:
    """Fit bridge, Swin and head on the training patients; the features keep ImageNet's weights.

    Returns the network in evaluation mode. The same recipe and data give the same weights on one
    machine.
    """
    with _one_thread():
        return _fit(dataset, recipe, track)


def _fit(dataset: Dataset, recipe: FitRecipe, track: Track) -> Network:
    torch.manual_seed(recipe.seed)
    network = build(NetworkConfig(feed_forward=recipe.feed_forward, ratio=recipe.ratio))
    load_imagenet(network.features)
    head = [*network.bridge.parameters(), *network.swin.parameters(), *network.head.parameters()]
    places = dataset.part(Part.TRAIN)
    u = torch.tensor([row.u for row in dataset.rows], dtype=torch.float32)
    steps = -(-len(places) // recipe.batch)
    optimiser = torch.optim.AdamW(head, lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, recipe.epochs * steps, pct_start=recipe.warm_up
    )
    rng = np.random.default_rng(recipe.seed)
    for _ in track(range(recipe.epochs), recipe.epochs, "Fitting"):
        for batch in _batches(rng.permutation(places), recipe.batch):
            maps = _turned(dataset.maps[np.sort(batch)], rng)
            loss = functional.smooth_l1_loss(
                network.quality_from_maps(maps), u[np.sort(batch)], beta=recipe.loss_bend
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head, recipe.clip_norm)
            optimiser.step()
            schedule.step()
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads add up in another order, which would end in other weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def predict(network: Network, maps: HalfArray, batch: int = 32) -> npt.NDArray[np.float64]:
    """Return the quality u of cached maps: (n, 176, 32, 32) -> (n,)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(maps), batch):
            stored = np.asarray(maps[start : start + batch], np.float32)
            parts.append(network.quality_from_maps(torch.from_numpy(stored)).double().numpy())
    return np.concatenate(parts) if parts else np.empty(0)


def _batches(order: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _turned(maps: HalfArray, rng: np.random.Generator) -> Tensor:
    """Flip and transpose each map at random: the same quality, another picture."""
    turned = np.array(maps, np.float32)
    for place, (flip_rows, flip_columns, transpose) in enumerate(rng.random((len(maps), 3)) < 0.5):
        one = turned[place]
        one = one[:, ::-1] if flip_rows else one
        one = one[:, :, ::-1] if flip_columns else one
        turned[place] = one.swapaxes(1, 2) if transpose else one.copy()
    return torch.from_numpy(turned)
