"""Import timm also where torchvision was built for another torch.

timm imports `torchvision.ops` without a guard. A torchvision wheel built for CUDA beside a CPU
torch lacks its compiled operators and fails at import with "operator torchvision::nms does not
exist". This package uses none of them.
"""

from __future__ import annotations

import functools
from types import ModuleType


@functools.cache
def import_timm() -> ModuleType:
    """Return the module timm. A torchvision that works is left as it is.

    Raises ImportError where timm, torch or torchvision is not installed.
    """
    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except RuntimeError:
        _declare_missing_operators()
    import timm

    return timm  # type: ignore[no-any-return]


def _declare_missing_operators() -> None:
    """Declare the two operators that torchvision's Python side names while it is imported."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    # The declarations vanish with the object.
    _KEPT_ALIVE.append(library)


_KEPT_ALIVE: list[object] = []
