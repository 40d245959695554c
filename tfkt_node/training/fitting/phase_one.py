"""Phase 1, knowledge transfer: the last blocks of the features learn from opinions on images.

A linear head on pooled feature maps is fitted to the scores of natural images together with the
blocks between strides 8 and 16. Stem and early blocks keep ImageNet's weights, so that the maps
at stride 8 are computed once. The head is left behind; the blocks go on to CT.

Experiments do not share a scale: equal scores in two subsets do not mean equal quality. Each
subset therefore has an offset and a scale of its own between what the network says and what
people said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tfkt_node.iqa.features import EfficientNetLite0, Inputs
from tfkt_node.records import FloatArray
from tfkt_node.training.fitting.fit import one_thread
from tfkt_node.training.fitting.imagenet import load_imagenet
from tfkt_node.training.fitting.natural_judge import Judge
from tfkt_node.training.images import natural
from tfkt_node.training.images.natural import Natural, Split
from tfkt_node.training.images.natural_distortions import distorted
from tfkt_node.training.recipe import NaturalRecipe
from tfkt_node.training.track import Track

FOLDER = "natural"
"""Of the images, in the folder of the data."""

SIMULATED, POOLED = "simulated", "pooled"
"""Names beside the subsets': what `natural_distortions` adds, and all that people scored."""

FLOOR = {
    "srij": (0.840, 0.827),
    "sr4k": (0.915, 0.897),
    "live": (0.582, 0.522),
    POOLED: (0.799, 0.822),
}
"""PLCC and SROCC of 66 hand-made features with support vector regression on the test split of the
shared set, as its README has them. No floor of another set."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """How the scores said of a subset's test images follow those that people gave; n images."""

    subset: str
    n: int
    plcc: float
    srocc: float
    krocc: float


@dataclass(frozen=True, slots=True)
class PhaseOne:
    """What was learnt: judge.features holds the adapted weights, correlations what it is worth.

    correlations: on the test split; each subset, then POOLED.
    """

    judge: Judge
    correlations: list[Correlation]


def adapted(data: Path, work: Path, inputs: Inputs, recipe: NaturalRecipe, track: Track) -> Path:
    """Return a file of adapted features, made in `work` or found there; torch.load reads it.

    data: folder that holds `natural`. Beside the file, under the same name, correlations as JSON.
    Raises Misconfigured where natural images are missing.
    """
    found = natural.read(data / FOLDER)
    scores = [(o.path.name, o.subset, o.split, o.score) for o in found.opinions]
    made_for = json.dumps([asdict(recipe), scores], sort_keys=True)
    path = work / f"opinion-{hashlib.sha256(made_for.encode()).hexdigest()[:12]}-{inputs}.pt"
    if not path.is_file():
        features = EfficientNetLite0(inputs).eval()
        load_imagenet(features)
        phase_one = adapt(features, data / FOLDER, recipe, track)
        work.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(
            json.dumps([asdict(row) for row in phase_one.correlations]), encoding="utf-8"
        )
        unfinished = path.with_suffix(".part")
        torch.save(phase_one.judge.features.state_dict(), unfinished)
        unfinished.replace(path)
    return path


def correlations(path: Path) -> list[Correlation]:
    """Read what `adapted` put beside its file."""
    rows = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return [Correlation(**row) for row in rows]


def adapt(
    features: EfficientNetLite0, folder: Path, recipe: NaturalRecipe, track: Track
) -> PhaseOne:
    """Let the last blocks learn from the natural images in `folder`; `features` stay as they are.

    The same recipe and images give the same weights on one machine. Keeps 0.1 MB an image in
    memory. Raises Misconfigured for a folder that `natural.read` cannot read.
    """
    found = natural.read(folder)
    with one_thread():
        torch.manual_seed(recipe.seed)
        judge = Judge(features)
        seen = _look(judge, found, recipe, track)
        _fit(judge, seen, recipe, track)
        return PhaseOne(judge, _correlate(judge, seen))


def as_hu(grey: FloatArray, recipe: NaturalRecipe) -> FloatArray:
    """Put luminance 0..255 where the features look at slices, HU."""
    low, high = recipe.window_hu
    return np.asarray(low + grey * ((high - low) / 255), np.float32)


@dataclass(frozen=True, slots=True)
class _Seen:
    """All images as the judge sees them, see `Judge.look`: place i is one image throughout."""

    early: Tensor
    stride_8: npt.NDArray[np.float16]
    score: Tensor
    subset: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]

    def batches(
        self, places: npt.NDArray[np.intp], size: int
    ) -> Iterator[tuple[npt.NDArray[np.intp], tuple[Tensor, Tensor]]]:
        """Yield places, at most `size` at once, with what `Judge.look` returned for them."""
        for start in range(0, len(places), size):
            some = places[start : start + size]
            maps = torch.from_numpy(self.stride_8[some].astype(np.float32))
            yield some, (self.early[some], maps)


def _look(judge: Judge, found: Natural, recipe: NaturalRecipe, track: Track) -> _Seen:
    early, stride_8, rows = [], [], []
    total = len(found.opinions) + (len(found.references) if recipe.enrich else 0)
    for images in track(_images(found, recipe), total, "Looking at natural images"):
        for grey, *row in images:
            with torch.no_grad():
                pooled, maps = judge.look(torch.from_numpy(as_hu(grey, recipe))[None])
            early.append(pooled)
            stride_8.append(maps[0].numpy().astype(np.float16))
            rows.append(row)
    score, subset, split = zip(*rows, strict=True)
    return _Seen(
        torch.cat(early), np.stack(stride_8), torch.tensor(score), np.array(subset), np.array(split)
    )


def _images(
    found: Natural, recipe: NaturalRecipe
) -> Iterator[list[tuple[FloatArray, float, str, Split]]]:
    """Yield each scored image alone, then each reference with its distorted copies."""
    for opinion in found.opinions:
        grey = natural.read_grey(opinion.path)
        yield [(grey, opinion.score, opinion.subset, opinion.split)]
    for number, reference in enumerate(found.references if recipe.enrich else ()):
        grey = natural.read_grey(reference.path)
        copies = distorted(grey, np.random.default_rng([recipe.seed, number]))
        yield [(g, score, SIMULATED, reference.split) for g, score in [(grey, 1.0), *copies]]


def _fit(judge: Judge, seen: _Seen, recipe: NaturalRecipe, track: Track) -> None:
    places = np.flatnonzero(seen.split == Split.TRAIN)
    with torch.no_grad():
        inputs = [judge.inputs(*maps) for _, maps in seen.batches(places, recipe.batch)]
    judge.start_head(torch.cat(inputs), seen.score[places], recipe.ridge_penalty)
    names, subset = np.unique(seen.subset, return_inverse=True)
    offset = nn.Parameter(torch.zeros(len(names)))
    log_scale = nn.Parameter(torch.zeros(len(names)))  # a scale that cannot turn round
    blocks, head = judge.late_parameters(), list(judge.head.parameters())
    groups: list[dict[str, Any]] = [
        {"params": blocks},
        {"params": head},
        {"params": [offset, log_scale], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [recipe.rate, recipe.head_rate, recipe.head_rate],
        recipe.epochs * -(-len(places) // recipe.batch),
        pct_start=recipe.warm_up,
    )
    rng = np.random.default_rng(recipe.seed)
    for _ in track(range(recipe.epochs), recipe.epochs, "Learning from opinions"):
        for batch, maps in seen.batches(rng.permutation(places), recipe.batch):
            scaled = offset[subset[batch]] + log_scale[subset[batch]].exp() * judge.judge(*maps)
            loss = functional.smooth_l1_loss(scaled, seen.score[batch], beta=recipe.loss_bend)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([*blocks, *head], recipe.clip_norm)
            optimiser.step()
            schedule.step()


def _correlate(judge: Judge, seen: _Seen) -> list[Correlation]:
    from scipy.stats import kendalltau, pearsonr, spearmanr

    test = seen.split == Split.TEST
    groups = {str(name): seen.subset == name for name in dict.fromkeys(seen.subset)}
    groups[POOLED] = seen.subset != SIMULATED
    found = []
    for name, group in groups.items():
        places = np.flatnonzero(test & group)
        with torch.no_grad():
            said = [judge.judge(*maps) for _, maps in seen.batches(places, size=32)]
        pair = seen.score[places].numpy(), torch.cat(said).numpy()
        measures = (float(of(*pair).statistic) for of in (pearsonr, spearmanr, kendalltau))
        found.append(Correlation(name, len(places), *measures))
    return found
