"""The fit: bridge, Swin and head learn u from feature maps that stay as they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tfkt_node.iqa.bridge import Standard, with_spreads
from tfkt_node.iqa.efficient_kan import fit_ranges
from tfkt_node.iqa.heads import OrdinalHead, ranked_probability_score
from tfkt_node.iqa.network import Member, Network, NetworkConfig, build
from tfkt_node.iqa.uncertainty import squash
from tfkt_node.training.dataset import Row
from tfkt_node.training.fitting.frozen import FeatureChoice, HalfArray, Maps, build_features
from tfkt_node.training.recipe import FitRecipe, NetworkRecipe
from tfkt_node.training.track import Track

SAMPLE = 256
"""Versions that tell mean and SD of each map and spread."""

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Job:
    """One fit. places: of the rows that are fitted to. checkpoint: file kept while it runs.

    log: file to which each epoch adds a line; several fits may share it.
    """

    network: NetworkRecipe
    features: FeatureChoice
    fit: FitRecipe
    places: Places
    checkpoint: Path
    log: Path


def fit(rows: Sequence[Row], maps: Maps, job: Job, track: Track) -> Network:
    """Fit to the rows at `job.places`; returns the network in evaluation mode.

    After each epoch everything is saved, so that a run that was stopped goes on there. The same
    job, rows and maps give the same weights on one machine, stopped or not.
    """
    with one_thread():
        return _Fit(rows, maps, job).run(track)


class _Fit:
    def __init__(self, rows: Sequence[Row], maps: Maps, job: Job) -> None:
        torch.manual_seed(job.fit.seed)
        self.job, self.maps = job, maps
        self.network = build(config(job.network))
        self.network.features = build_features(job.features)
        (member,) = self.network.members
        self.member = cast(Member, member)
        self._set_scales()
        self.fitted = list(self.member.parameters())
        self.u = torch.tensor([row.u for row in rows], dtype=torch.float32)
        self.scores = torch.from_numpy(squash(self.u.numpy())).float()
        self.batches = Batches([rows[place].file for place in job.places], job.places, job.fit)
        recipe = job.fit
        self.optimiser = torch.optim.AdamW(
            self.fitted, lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            recipe.rate,
            recipe.epochs * len(self.batches),
            pct_start=recipe.warm_up,
        )

    def _set_scales(self) -> None:
        """Bring channels to SD 1 and the grids of the KAN layers to where their inputs lie."""
        places = self.job.places
        some = np.sort(places[:: max(len(places) // SAMPLE, 1)])
        standard = cast(Standard, self.network.standard)
        stored = torch.from_numpy(np.asarray(self.maps.plain[some], np.float32))
        standard.measure(with_spreads(stored))
        with torch.no_grad():
            fit_ranges(self.network, lambda: self.network.quality_from_maps(stored))

    def run(self, track: Track) -> Network:
        epochs = range(self._resume(), self.job.fit.epochs)
        for epoch in track(epochs, len(epochs), "Fitting"):
            began = time.monotonic()
            rng = np.random.default_rng([self.job.fit.seed, epoch])
            losses = [self._step(batch, rng) for batch in self.batches.draw(rng)]
            self._save(epoch + 1)
            self._log(epoch + 1, float(np.mean(losses)), time.monotonic() - began)
        return self.network.eval()

    def _step(self, batch: Places, rng: np.random.Generator) -> float:
        described = self.network.describe(_turned(self._draw(batch, rng), rng))
        loss = self._loss(self._hide(described), batch)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.fitted, self.job.fit.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())

    def _draw(self, batch: Places, rng: np.random.Generator) -> HalfArray:
        """Take some of the versions as they are presented otherwise."""
        is_otherwise = rng.random(len(batch)) < self.job.fit.otherwise
        chosen = np.where(
            is_otherwise[:, None, None, None], self.maps.otherwise[batch], self.maps.plain[batch]
        )
        return np.asarray(chosen, np.float16)

    def _hide(self, described: Tensor) -> Tensor:
        """Set some maps and spreads of each version to 0, their mean: none is relied on alone."""
        seen = torch.rand(described.shape[0], described.shape[1], 1, 1) >= self.job.fit.hidden
        return torch.where(seen, described, 0.0)

    def _loss(self, described: Tensor, batch: Places) -> Tensor:
        """Compare u with the labels, and its differences within each slice with theirs."""
        recipe, head = self.job.fit, self.member.head
        tokens = self.member.tokens(described)
        if isinstance(head, OrdinalHead):
            return ranked_probability_score(head.logits(tokens), self.scores[batch]).mean()
        said, truth = head(tokens), self.u[batch]
        loss = functional.smooth_l1_loss(said, truth, beta=recipe.loss_bend)
        apart = functional.smooth_l1_loss(
            _differences(said, recipe.versions),
            _differences(truth, recipe.versions),
            beta=recipe.loss_bend,
        )
        return loss + recipe.difference * apart

    def _log(self, epoch: int, loss: float, seconds: float) -> None:
        line = (
            f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self.job.checkpoint.stem} "
            f"epoch {epoch} of {self.job.fit.epochs}: loss {loss:.4f}, {seconds:.0f} s\n"
        )
        with self.job.log.open("a", encoding="utf-8") as log:
            log.write(line)

    def _save(self, epochs: int) -> None:
        self.job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.job.checkpoint.with_suffix(".part")
        state = {
            "epochs": epochs,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
        }
        torch.save(state, unfinished)
        unfinished.replace(self.job.checkpoint)

    def _resume(self) -> int:
        """Return how many epochs are done."""
        if not self.job.checkpoint.is_file():
            return 0
        state = torch.load(self.job.checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        return int(state["epochs"])


class Batches:
    """Batches of several slices with several versions each, so that versions can be compared.

    An epoch meets a row at most once; the last rows of a slice that do not fill a share wait for
    the next epoch, which deals them out anew. A slice with fewer rows than a share is never met.
    """

    def __init__(self, files: Sequence[str], places: Places, recipe: FitRecipe) -> None:
        names = np.array(files)
        self._slices = [places[names == name] for name in dict.fromkeys(files)]
        self._versions, self._per_batch = recipe.versions, recipe.slices
        shares = sum(len(own) // recipe.versions for own in self._slices)
        self._count = shares // recipe.slices

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._count

    def draw(self, rng: np.random.Generator) -> Iterator[Places]:
        """Yield the batches of one epoch; versions of one slice stand together."""
        shares = [
            share for own in self._slices for share in _whole(rng.permutation(own), self._versions)
        ]
        order = rng.permutation(len(shares))
        for chosen in _whole(order, self._per_batch):
            yield np.concatenate([shares[place] for place in chosen])


def _differences(u: Tensor, versions: int) -> Tensor:
    """Return (slices, versions, versions): each version less each other of its slice."""
    of_slice = u.view(-1, versions)
    return of_slice[:, :, None] - of_slice[:, None, :]


def config(recipe: NetworkRecipe) -> NetworkConfig:
    """Return the configuration of the network of one member that a recipe fits."""
    return NetworkConfig(
        inputs=recipe.inputs,
        bridge=recipe.bridge,
        feed_forward=recipe.feed_forward,
        head=recipe.head,
        dim=recipe.dim,
        depths=recipe.depths,
        ratio=recipe.ratio,
    )


def predict(network: Network, maps: HalfArray, batch: int = 32) -> npt.NDArray[np.float64]:
    """Return the quality u of cached maps: (n, C, 32, 32) -> (n,)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(maps), batch):
            stored = np.asarray(maps[start : start + batch], np.float32)
            parts.append(network.quality_from_maps(torch.from_numpy(stored)).double().numpy())
    return np.concatenate(parts) if parts else np.empty(0)


def _whole(items: Places, size: int) -> Iterator[Places]:
    for start in range(0, len(items) - size + 1, size):
        yield items[start : start + size]


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads add up in another order, which would end in other weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _turned(maps: HalfArray, rng: np.random.Generator) -> Tensor:
    """Flip and transpose each map at random, so that no place of it means anything by itself.

    These are not the maps of a turned slice, which has another texture for the features: see
    `Maps.otherwise` for those.
    """
    turned = np.array(maps, np.float32)
    for place, (flip_rows, flip_columns, transpose) in enumerate(rng.random((len(maps), 3)) < 0.5):
        one = turned[place]
        one = one[:, ::-1] if flip_rows else one
        one = one[:, :, ::-1] if flip_columns else one
        turned[place] = one.swapaxes(1, 2) if transpose else one.copy()
    return torch.from_numpy(turned)
