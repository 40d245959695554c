"""The log lines: promise P10, no identifier, and lines that programs read."""

from __future__ import annotations

import json
import logging

from tfkt_node.logs import JsonLines, KeepIdentifiersOut


def record(name: str, level: int, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, level, "file.py", 7, message, args, None)


def test_json_line_gives_the_event_and_each_pair() -> None:
    line = JsonLines().format(
        record("tfkt_node.node", logging.INFO, "series.closed revision=%d how=%r", 3, "long quiet")
    )

    said = json.loads(line)
    assert "series.closed" == said["event"]
    assert {"revision": "3", "how": "long quiet"} == {key: said[key] for key in ("revision", "how")}


def test_library_error_loses_its_text_and_traceback() -> None:
    """P10: what a library says may quote a header, so only that it spoke is written."""
    spoken = record("pydicom.valuerep", logging.ERROR, "Invalid value for PN: Doe^Jane")
    spoken.exc_text = "Traceback … Doe^Jane"

    kept = KeepIdentifiersOut().filter(spoken)

    assert kept
    assert "Doe" not in logging.Formatter().format(spoken)


def test_library_warning_is_not_written() -> None:
    """P10: warnings of pydicom quote the value that they warn of."""
    assert not KeepIdentifiersOut().filter(record("pydicom", logging.WARNING, "Doe^Jane"))


def test_own_line_loses_its_traceback_only() -> None:
    """P10: a traceback may quote a value; the event and its type stay."""
    own = record("tfkt_node.scorer", logging.ERROR, "scorer.error type=ValueError")
    own.exc_info = (ValueError, ValueError("Doe^Jane"), None)

    assert KeepIdentifiersOut().filter(own)
    assert "scorer.error type=ValueError" == logging.Formatter().format(own)


def test_pairs_never_replace_what_every_line_has() -> None:
    line = JsonLines().format(record("tfkt_node.x", logging.INFO, "event at=nowhere level=9"))

    said = json.loads(line)
    assert ("INFO", "event") == (said["level"], said["event"])
    assert said["at"].startswith("20")
