"""A bundle of TFKT V2 from a checkpoint that its authors' code wrote.

No such weights are published; whoever has some knows what they were fitted to, this code does not.
The bundle therefore claims nothing: its interval is the whole scale, so that no verdict is sure of
itself until a site has measured the errors.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tfkt_node.iqa import feature_distance
from tfkt_node.iqa.bundle import Bundle
from tfkt_node.iqa.network import RELEASED, build
from tfkt_node.iqa.released import load_released, read_checkpoint
from tfkt_node.iqa.uncertainty import HIGHEST, LOWEST, Calibration
from tfkt_node.records import Misconfigured
from tfkt_node.training.bundles.export import Description, golden_slices, write_bundle

NAME = "tfkt-v2"

SUMMARY = "TFKT V2 with the weights of a checkpoint: what its scores are worth is not known here."

COVERAGE = 0.9

ANY_ERROR = (LOWEST - HIGHEST, LOWEST - HIGHEST, HIGHEST - LOWEST, HIGHEST - LOWEST)
"""Errors that leave no score on one side of a threshold: as likely too high as too low, and far."""

README = """# {name} {version}

**{summary}**

The released graph: EfficientNetV2-L, global bridge, Swin V2-B, one number. The weights are those of
the checkpoint whose SHA-256 begins with {version}; nothing was fitted here.

- Nothing is known of its errors: the interval of every score is the whole scale and no verdict is
  confident. `tfkt-node evaluate --bundle FOLDER --data DATA` shows what it makes of real images.
- Its authors' published scores are 0.2 points above the readers on average, 0.4 at the low end. No
  recalibration is set: `[calibration]` in `card.toml` adds nothing.
- Its bridge knows no places: there is no heat map. No features of its training are known: what it
  should not score is told by header and pixels alone.
- It runs at a small part of the speed of tfkt-v2-lite (`tfkt-node bench model`).
- Who gave you the checkpoint knows its terms.
"""


def convert(checkpoint: Path, folder: Path) -> Bundle:
    """Write a bundle into a folder, made if needed, and load it again; takes some minutes, 2 GB.

    Raises Misconfigured for a file that is no checkpoint of TFKT V2, OSError where it cannot be
    read.
    """
    network = build(RELEASED)
    try:
        load_released(network, read_checkpoint(checkpoint))
    except ValueError as error:
        raise Misconfigured(f"{error}; expected the state dict of a whole TFKT V2") from error
    with checkpoint.open("rb") as file:
        version = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    whole = HIGHEST - LOWEST
    description = Description(
        name=NAME,
        version=version,
        summary=SUMMARY,
        scope={"modality": "CT", "told_by": "header and pixels"},
        calibration=Calibration(
            1.0, 0.0, below=whole, above=whole, coverage=COVERAGE, errors=ANY_ERROR
        ),
        data={"source": f"checkpoint with SHA-256 {version}…; what it was fitted to is not known"},
        figures=(),
        readme=README.format(name=NAME, version=version, summary=SUMMARY),
        recipe="# Converted from a checkpoint: nothing was fitted here.\n",
    )
    anywhere = feature_distance.unlimited(network.features.channels)
    return write_bundle(folder, network, description, golden_slices(), anywhere)
