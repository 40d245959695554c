"""What a bundle says of itself: the card's tables, the recipe and the README.

The words are in `bundle_words`; here are the numbers.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from tfkt_node import __version__
from tfkt_node.iqa.uncertainty import Calibration
from tfkt_node.training import ldctiqac
from tfkt_node.training.bundles import bundle_words as words
from tfkt_node.training.bundles.export import Description
from tfkt_node.training.dataset import Row
from tfkt_node.training.judging.evaluation import TRAIN, Figure
from tfkt_node.training.judging.on_real_images import EVALUATE
from tfkt_node.training.recipe import Recipe
from tfkt_node.training.simulation import label, low_dose


def describe(
    recipe: Recipe, rows: Sequence[Row], calibration: Calibration, figures: Sequence[Figure]
) -> Description:
    """Put together all that a bundle says beside its weights."""
    data = data_table(recipe, rows)
    return Description(
        name=words.NAME,
        version=words.VERSION,
        summary=words.SUMMARY,
        scope=words.SCOPE,
        calibration=calibration,
        data=data,
        figures=tuple(
            {"name": figure.name, "value": figure.value, "command": figure.command}
            for figure in figures
        ),
        readme=readme(recipe, rows, calibration, figures),
        recipe=recipe_text(recipe),
    )


def data_table(recipe: Recipe, rows: Sequence[Row]) -> dict[str, Any]:
    """Count what the network was fitted to and tested on, and name whose it was."""
    regions = Counter(region for _, region in {(row.patient, row.region) for row in rows})
    return {
        **words.SOURCES,
        "readers": _by_readers(rows)["readers"],
        "natural_images": words.NATURAL[recipe.network.features],
        "patients": sorted({row.patient for row in rows}),
        "patients_by_region": dict(sorted(regions.items())),
        "slices": len({row.file for row in rows}),
        "versions": len(rows),
        "versions_only_tested": sum(row.tested_only for row in rows),
        "versions_by_kind": dict(Counter(row.kind for row in rows)),
    }


def recipe_text(recipe: Recipe) -> str:
    """Write recipe.toml: constants to repeat the run, then what it ran with."""
    values = recipe.to_table()
    tables: dict[str, Mapping[str, Any]] = {
        **{name: values[name] for name in ("data", "network", "fit", "natural")},
        "label": label.constants(),
        "simulation": {
            "water_per_mm": low_dose.WATER_PER_MM,
            "kernel_peaks_per_mm": [kernel.peak_per_mm for kernel in low_dose.Kernel],
        },
        "ran_with": {
            "tfkt_node": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "timm", "numpy", "scipy")},
            "scikit_image": version("scikit-image"),
        },
    }
    lines = [
        f"# {words.SUMMARY}",
        f"# Repeat: {TRAIN.replace('RECIPE', 'recipe.toml')}",
        "# [label] and [simulation] are constants of the program, [ran_with] is what it ran with:",
        "# these three are not read.",
        f"coverage = {json.dumps(values['coverage'])}",
    ]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def readme(
    recipe: Recipe,
    rows: Sequence[Row],
    calibration: Calibration,
    figures: Sequence[Figure],
) -> str:
    """Write the bundle's README: what was measured and what was not."""
    simulated = [row for row in rows if row.kind != ldctiqac.KIND]
    filters = {row.detail.partition(" ")[0] for row in simulated if row.kind == "smoothed"}
    series_below, series_above = calibration.series
    return words.README.format(
        name=words.NAME,
        version=words.VERSION,
        summary=words.SUMMARY,
        inputs=words.INPUTS[recipe.network.inputs],
        feed_forward=recipe.network.feed_forward.upper(),
        bridge=recipe.network.bridge,
        folds=recipe.data.folds,
        seeds=recipe.fit.seeds,
        patients=len({row.patient for row in simulated}),
        slices=len({row.file for row in simulated}),
        each=recipe.data.slices_per_patient,
        versions=len(simulated),
        filters=len(filters),
        natural=words.NATURAL[recipe.network.features],
        sigma=label.SIGMA_AT_4,
        streaks=label.STREAK_WEIGHT,
        loss=label.LOSS_POINTS,
        shift=calibration.shift,
        shifted=label.SIGMA_AT_4 * 2 ** (calibration.shift / 2),
        below=calibration.below,
        above=calibration.above,
        series_below=series_below,
        series_above=series_above,
        coverage=round(100 * calibration.coverage),
        cross_validated=_table(figures, TRAIN),
        against_rivals=_against_rivals(figures),
        train=TRAIN,
        real=_table(figures, EVALUATE),
        evaluate=EVALUATE,
        **_by_readers(rows),
    )


def _by_readers(rows: Sequence[Row]) -> dict[str, str]:
    """Return `words.READERS` as it fits the rows."""
    images = sum(row.kind == ldctiqac.KIND for row in rows)
    return {
        name: (some if images else none).format(images=images)
        for name, (none, some) in words.READERS.items()
    }


def _against_rivals(figures: Sequence[Figure]) -> str:
    """Say plainly, rival by rival, who orders all versions better."""
    start, low, high = "all: SROCC over ", ", 95 % low", ", 95 % high"
    values = {figure.name: figure.value for figure in figures}
    sentences = []
    for name in values:
        if not name.startswith(start) or name.endswith((low, high)):
            continue
        rival = name.removeprefix(start)
        # Of fewer than 8 patients there are no bounds.
        if values.get(name + low, 0) > 0:
            sentences.append(f"The network orders all versions better than the {rival}.")
        elif values.get(name + high, 0) < 0:
            sentences.append(f"**The {rival} orders all versions better than the network.**")
        else:
            sentences.append(f"**Against the {rival} no difference is shown over all versions.**")
    return "\n".join(sentences)


def _table(figures: Sequence[Figure], command: str) -> str:
    return "\n".join(f"| {f.name} | {f.value:g} |" for f in figures if f.command == command)
