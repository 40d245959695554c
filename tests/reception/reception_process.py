"""A reception in a process of its own, for tests that trace or kill it.

Usage: reception_process.py SPOOL. Prints its port, and ends when its standard input is closed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from pydicom.uid import JPEGLosslessSV1

from tfkt_node.reception.association import StorageSCP
from tfkt_node.reception.door import Door
from tfkt_node.reception.instances import Spool
from tfkt_node.settings import Reception


def main(root: Path) -> None:
    settings = Reception(port=0)
    scp = StorageSCP(
        settings,
        Door(settings, ()),
        Spool(root),
        offer=lambda arrival: None,
        decodable=[JPEGLosslessSV1],
        clock=lambda: datetime.now(UTC),
    )
    scp.start()
    sys.stdout.write(f"{scp.port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    scp.stop(limit_s=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
