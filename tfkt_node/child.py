"""What a child process that opens images does first, so that it can harm nothing but itself."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading

from tfkt_node import logs
from tfkt_node.settings import Settings


def confine(settings: Settings) -> None:
    """Set up logging and the limit of memory, and end this process with its parent."""
    logs.configure(settings.logging)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to us as well
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit = settings.scoring.memory_limit_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _end_with_parent() -> None:
    """End this process when its parent is killed, even in the middle of an image."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
