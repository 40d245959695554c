"""Log lines: an event name with key=value pairs, as text on a terminal, else as JSON lines.

Guarantees that no identifier of a patient or study is written (promise P10): our own lines carry
counts, states and row numbers only, and libraries, whose messages may quote headers, are cut down
to their own name and severity unless the level is DEBUG.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from datetime import UTC, datetime

from tfkt_node.settings import Logging

_PAIR = re.compile(r"""(\w+)=("[^"]*"|'[^']*'|\S+)""")


class JsonLines(logging.Formatter):
    """`series.closed revision=3 instances=64` becomes an object with these keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON; `at` is UTC."""
        text = record.getMessage()
        event, _, rest = text.partition(" ")
        pairs = {key: value.strip("\"'") for key, value in _PAIR.findall(rest)}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"at": at, "level": record.levelname, "logger": record.name, "event": event}
        said = {} if pairs or not rest else {"message": rest}
        return json.dumps({**said, **pairs, **head})


class KeepIdentifiersOut(logging.Filter):
    """Let our own lines through; of libraries only errors, and those without text or traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written; cut it where it may quote a header."""
        record.exc_info, record.exc_text = None, None
        if record.name.startswith("tfkt_node"):
            return True
        if record.levelno < logging.ERROR:
            return False
        record.msg, record.args = f"library.error where={record.module}:{record.lineno}", ()
        return True


def configure(settings: Logging) -> None:
    """Set up logging for the process, once, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JsonLines() if as_json else text)
    if settings.level != "DEBUG":
        handler.addFilter(KeepIdentifiersOut())
        # pydicom warns with the very value that it finds wrong.
        warnings.simplefilter("ignore")
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    if settings.level != "DEBUG":
        # Our own lines say what became of each association and delivery, with the cure.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
