"""What a bundle says of itself: the card's tables, the recipe and the README."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tfkt_node import __version__
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.training import label, simulation
from tfkt_node.training.collection import Part
from tfkt_node.training.dataset import Row
from tfkt_node.training.evaluation import Figure
from tfkt_node.training.export import Description
from tfkt_node.training.recipe import Recipe

NAME, VERSION = "tfkt-v2-lite", "0.1.0"
SUMMARY = (
    "A first bundle, from about an hour of training on simulated dose; to be made good by later "
    "work. Never shown to readers."
)
EVALUATE = "tfkt-node evaluate --bundle models/tfkt-v2-lite --data DATA"
TRAIN = "tfkt-node train --data DATA --work WORK --out OUT"

SCOPE = {
    "modality": "CT",
    "population": "adults; no child was among the patients",
    "regions": ["chest", "abdomen", "pelvis"],
    "kernels": "soft to medium; no lung or bone kernel was among the slices",
    "not_for": "heads, phantoms, reformats, iterative or learnt reconstruction (not tried)",
}


def describe(
    recipe: Recipe, rows: Sequence[Row], calibration: Calibration, figures: Sequence[Figure]
) -> Description:
    """Put together all that a bundle says beside its weights."""
    return Description(
        name=NAME,
        version=VERSION,
        summary=SUMMARY,
        scope=SCOPE,
        calibration=calibration,
        data=data_table(rows),
        figures=tuple(
            {
                "name": figure.name,
                "value": figure.value,
                "command": TRAIN if figure.name.startswith("rival") else EVALUATE,
            }
            for figure in figures
        ),
        readme=readme(recipe, rows, calibration, figures),
        recipe=recipe_text(recipe, rows),
    )


def data_table(rows: Sequence[Row]) -> dict[str, Any]:
    """Count what the network was fitted to, and name who was held out."""
    table: dict[str, Any] = {
        "source": "ct-clean: TCIA collections TCGA-LUAD, TCGA-LUSC, COVID-19-NY-SBU, LIDC-IDRI, "
        "ACRIN-FLT-Breast, RIDER Pilot, StageII-Colorectal-CT, and a test case of dcmqi",
        "terms": "CC BY 3.0 or 4.0 as far as known; MIDRC-RICORD-1A (CC BY-NC 4.0) was left out",
        "natural_images": "ImageNet weights of the features; no opinion scores were used",
        "readers": "none: labels are computed; two constants of the label rest on six images of "
        "LDCTIQAC 2023 that readers scored",
    }
    for part in Part:
        chosen = [row for row in rows if row.part is part]
        table[f"{part}_patients"] = sorted({row.patient for row in chosen})
        table[f"{part}_slices"] = len({row.file for row in chosen})
        table[f"{part}_versions"] = len(chosen)
    return table


def recipe_text(recipe: Recipe, rows: Sequence[Row]) -> str:
    """Write recipe.toml: constants to repeat the run, then what it ran with."""
    values = recipe.to_table()
    tables: dict[str, Mapping[str, Any]] = {
        "data": values["data"],
        "fit": values["fit"],
        "label": {
            "sigma_at_4": label.SIGMA_AT_4,
            "streak_weight": label.STREAK_WEIGHT,
            "band_px": label.BAND_PX,
            "band_share": label.BAND_SHARE,
            "standard_response": label.STANDARD_RESPONSE,
            "blob_hu": label.BLOB_HU,
            "loss_points": label.LOSS_POINTS,
            "u_range": label.U_RANGE,
        },
        "simulation": {
            "water_per_mm": simulation.WATER_PER_MM,
            "kernel_peaks_per_mm": [kernel.peak_per_mm for kernel in simulation.Kernel],
        },
        "held_out": {
            str(part): sorted({row.patient for row in rows if row.part is part})
            for part in (Part.CALIBRATION, Part.TEST)
        },
        "ran_with": {
            "tfkt_node": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "timm", "numpy", "scipy")},
            "scikit_image": version("scikit-image"),
        },
    }
    lines = [
        f"# {SUMMARY}",
        f"# Repeat: {TRAIN} --recipe recipe.toml",
        "# [label] and [simulation] are constants of the program, [held_out] and [ran_with] what",
        "# followed: these four are not read.",
        f"coverage = {json.dumps(values['coverage'])}",
    ]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def readme(
    recipe: Recipe, rows: Sequence[Row], calibration: Calibration, figures: Sequence[Figure]
) -> str:
    """Write the bundle's README: what was measured and what was not."""
    count = data_table(rows)
    shown = "\n".join(f"| {figure.name} | {figure.value} |" for figure in figures)
    return README.format(
        name=NAME,
        version=VERSION,
        summary=SUMMARY,
        evaluate=EVALUATE,
        train=TRAIN,
        feed_forward=recipe.fit.feed_forward.upper(),
        half_width=calibration.below,
        coverage=round(100 * calibration.coverage),
        kan_or_mlp=_kan_or_mlp(recipe, figures),
        figures=shown,
        **{key: value if isinstance(value, int) else len(value) for key, value in count.items()},
    )


def _kan_or_mlp(recipe: Recipe, figures: Sequence[Figure]) -> str:
    """Say plainly which feed-forward did better; nothing before the rival was fitted."""
    values = {figure.name: figure.value for figure in figures}
    rivals = [n for n in values if n.startswith("rival") and n.endswith("forward: SROCC of u")]
    if not rivals:
        return ""
    ahead = values["all: SROCC of u"] - values[rivals[0]]
    if abs(ahead) < 0.01:
        return "Between KAN and MLP feed-forward this run shows no difference."
    own, other = recipe.fit.feed_forward.upper(), "MLP" if "MLP" in rivals[0] else "KAN"
    return f"The {own if ahead > 0 else other} feed-forward did better in this run."


README = """# {name} {version}

**{summary}**

It assists in finding CT series that should be looked at again; it is no medical device, and nobody
has compared its scores with readers of clinical series.

EfficientNet-Lite0 (ImageNet weights, frozen) gives maps at strides 4, 8 and 16; a spatial bridge
makes 16 x 16 tokens of them; a small Swin V2 with {feed_forward} feed-forward gives one number u
on an open scale, which `iqa.uncertainty` bends into the score 0 to 4.

## What the score means

The network was fitted to a computed label: u falls by one point with each halving of the dose,
4 is a noise of 24 HU as of a standard kernel, streaks count more than noise of the same strength,
and smoothing never gains. The scale's two constants (24 HU, and the weight of streaks) were set
on six images that radiologists scored in the challenge LDCTIQAC 2023. Six images are few, the
weight of streaks rests on one of them: errors on these six are no evidence.

## Data

| for | patients | slices | versions |
| --- | --- | --- | --- |
| the fit | {train_patients} | {train_slices} | {train_versions} |
| the interval | {calibration_patients} | {calibration_slices} | {calibration_versions} |
| the test | {test_patients} | {test_slices} | {test_versions} |

No patient is in two parts; card.toml names them. All are adults. Slices of MIDRC-RICORD-1A
(CC BY-NC) were left out; the others come from TCIA collections under CC BY as far as known.
**Check the terms before publishing.**

Everything but the clean slice is simulated: lower dose (noise put into the projections, parallel
beam, one energy, no bowtie filter), fewer views, and four smoothing filters (one of them only
ever used on held-out patients).

## Figures

On held-out patients unless said otherwise, printed by

    {evaluate}

and for the rivals, which were fitted to the same maps, by

    {train}

DATA holds ct-clean, anchors and paired-dose. Points are points of the score. The "noise
formula" is 4 - 2 log2(noise / 24 HU) with the noise measured on the image itself; on clean slices
it is the label, everywhere else it is what a network has to beat. Single runs: differences below
0.01 in SROCC or 0.03 in MAE mean nothing. {kan_or_mlp}

| figure | value |
| --- | --- |
{figures}

The interval is the score +- {half_width} ({coverage} %, split conformal, one version drawn from
each calibration patient at a time). {calibration_patients} patients make it rough.

## Not tried, not known

- Readers' scores of clinical series; children; heads; lung and bone kernels; metal, motion.
- Iterative and learnt reconstruction: only filters after the fact were simulated.
- Opinion scores of natural images: not used. In a trial they taught the network to prefer noise.
- More slices, fine-tuning of the features, several input windows: later work.
"""
