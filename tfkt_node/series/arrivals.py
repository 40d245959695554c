"""Close the series that have been quiet long enough, from rows alone.

DICOM has no sign for "the series is complete": the quiet period is the only one that always holds,
and it counts from any new instance of the series, over whatever association. A late instance opens
the next revision.
"""

from __future__ import annotations

import logging
from datetime import datetime

from tfkt_node.audit.store import Store
from tfkt_node.settings import Series

LOGGER = logging.getLogger(__name__)


def close_quiet_series(store: Store, settings: Series, now: datetime) -> int:
    """Freeze every revision without a new instance for `quiet_s` seconds; return how many.

    An instance that comes in between look and close keeps its revision open.
    """
    closed = 0
    for quiet in store.quiet_revisions(now, settings.quiet_s):
        if store.close_revision(quiet.revision_id, quiet.last_arrival_at, now):
            closed += 1
            LOGGER.info(
                "series.closed revision=%d quiet_s=%.0f",
                quiet.revision_id,
                (now - quiet.last_arrival_at).total_seconds(),
            )
    return closed


def restart_quiet_periods(store: Store, now: datetime) -> int:
    """Start the quiet period of every open revision anew; return how many.

    At boot: while the node was down nothing could arrive, so that silence says nothing. And when
    the clock was set: the time since the last arrival is not known.
    """
    restarted = store.restart_quiet_periods(now)
    if restarted:
        LOGGER.info("series.restarted open=%d", restarted)
    return restarted
