"""UIDs of the node's own: derived, so that a rebuilt object keeps its identity (promise P5)."""

from __future__ import annotations

import re
import uuid

_NAMESPACE = uuid.UUID("7d1c1f5e-2c4b-4f0c-9a57-3b8f0d5e6a11")


def derived(*keys: str) -> str:
    """Return the UID that stands for these keys: 2.25 and a name-based UUID (PS3.5 B.2).

    At most 44 characters. The same keys give the same UID on every installation.
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(31).join(keys)).int}"


CODING_SCHEME_UID = derived("coding scheme", "99TFKT")
"""Names the private coding scheme of `codes`."""


def usable(uid: str) -> bool:
    """Tell whether a received value can stand where a UID must: digits and dots, 1 to 64."""
    return re.fullmatch(r"[0-9][0-9.]{0,63}", uid) is not None
