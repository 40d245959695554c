"""Content items of the trees: thin words over highdicom's, so that a tree reads like its template.

Containers are SEPARATE (viewers then print "name: value" lines), and text is ASCII, because the
patient's character set rules the whole object and may hold nothing else (PS3.5 6.1.2).
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np
from highdicom.sr.value_types import (
    CodeContentItem,
    ContainerContentItem,
    ImageContentItem,
    NumContentItem,
    ScoordContentItem,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.sr.coding import Code

from tfkt_node.records import RETRY_DELIVERIES, Permanent, ReportRecord
from tfkt_node.report import codes

Item = Any
"""A content item of highdicom, which has no types of its own."""

Relationship = Literal[
    "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "INFERRED FROM", "SELECTED FROM"
]

NODE_NAME = "tfkt-node"
"""Name, manufacturer and model of the device that made an object; its version stands apart."""


def container(name: Code, *children: Item, template: str | None = None, root: bool = False) -> Item:
    """Make a container of the children; the root has no relationship."""
    item = ContainerContentItem(
        name,
        is_content_continuous=False,
        template_id=template,
        relationship_type=None if root else "CONTAINS",
    )
    item.ContentSequence = children
    return item


def text(name: Code, value: str, relationship: Relationship = "CONTAINS") -> Item:
    """Make a TEXT item; what is not plain ASCII is replaced."""
    return TextContentItem(name, plain(value), relationship)


def code(name: Code, value: Code, relationship: Relationship = "CONTAINS") -> Item:
    """Make a CODE item."""
    return CodeContentItem(name, value, relationship)


def uid(name: Code, value: str, relationship: Relationship = "HAS OBS CONTEXT") -> Item:
    """Make a UIDREF item."""
    return UIDRefContentItem(name, value, relationship)


def number(name: Code, value: float, unit: Code, *inferred_from: Item) -> Item:
    """Make a NUM item. Raises Permanent for a value that is not finite."""
    if not math.isfinite(value):
        raise Permanent(
            f"the value of {name.meaning!r} is not a finite number",
            cure=f"report it as a fault of the node; once mended, run {RETRY_DELIVERIES}",
        )
    item = NumContentItem(name, value, unit, relationship_type="CONTAINS")
    if isinstance(value, int):
        item.MeasuredValueSequence[0].NumericValue = str(value)  # not "35.0" for a count
    if inferred_from:
        item.ContentSequence = inferred_from
    return item


def image(sop_class_uid: str, sop_uid: str, frame: int | None, relationship: Relationship) -> Item:
    """Make an IMAGE item; frame: 1-based for multi-frame objects."""
    return ImageContentItem(
        codes.SOURCE, sop_class_uid, sop_uid, frame, relationship_type=relationship
    )


def rectangle(
    name: Code, box: tuple[float, float, float, float], relationship: Relationship, source: Item
) -> Item:
    r"""Make a closed POLYLINE around a box (left, top, right, bottom) of the source image, pixels.

    Source: PS3.3 C.18.6.1.2: (column, row) pairs, 0\0 is the outer corner of the first pixel.
    """
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    item = ScoordContentItem(
        name, "POLYLINE", np.array(corners, dtype=np.float64), relationship_type=relationship
    )
    item.ContentSequence = (source,)
    return item


def language() -> Item:
    """Say that the text is English (TID 1204)."""
    return code(codes.LANGUAGE, codes.ENGLISH, "HAS CONCEPT MOD")


def device_observer(record: ReportRecord) -> tuple[Item, ...]:
    """Name this installation as the observer (TID 1004, which has no place for a version)."""
    context: Relationship = "HAS OBS CONTEXT"
    return (
        code(codes.OBSERVER_TYPE, codes.DEVICE, context),
        uid(codes.DEVICE_UID, record.node_uid, context),
        text(codes.DEVICE_NAME, NODE_NAME, context),
        text(codes.DEVICE_MANUFACTURER, NODE_NAME, context),
        text(codes.DEVICE_MODEL, NODE_NAME, context),
    )


def plain(value: str) -> str:
    """Return printable ASCII without a backslash: safe in every DICOM character set."""
    spaced = " ".join(value.split())
    return re.sub(r"[^\x20-\x5b\x5d-\x7d]", "?", spaced) or "-"
