"""Check promise P1 in a system call trace of a reception.

Reads the output of `strace -f -tt -y -xx -s 700 -e trace=write,writev,fsync,rename,sendto`: every
string in it is hexadecimal, so that what a peer sends cannot imitate a line of the trace. For each
C-STORE response with status 0x0000 it demands, in this order, each step complete before the next
begins: the instance written to a temporary file, fsync of that file, rename to the final name,
fsync of the folder, response. Responses and files are matched by the SOP Instance UID in both.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

TRACED = "write,writev,fsync,fdatasync,rename,renameat,renameat2,sendto,sendmsg"
ARGUMENTS = ["-f", "-tt", "-y", "-xx", "-s", "700", "-e", f"trace={TRACED}"]

LINE = re.compile(r"(?P<pid>\d+) +[\d:.]+ (?P<rest>.*)")
HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
P_DATA_TF = 4
RESPONSE_STATUS = struct.pack("<HHL", 0, 0x0900, 2)
RESPONSE_UID = struct.pack("<HH", 0, 0x1000)


@dataclass
class Call:
    """One system call. began, ended: numbers of the lines where it did."""

    name: str
    arguments: str
    result: str
    began: int
    ended: int

    @property
    def path(self) -> str:
        """The path of a call on a file descriptor."""
        return self._path_of(re.match(r"\d+<([^>]*)>", self.arguments))

    @property
    def paths(self) -> list[str]:
        """The strings among the arguments, as text."""
        return [text(quoted) for quoted in re.findall(r'"([^"]*)"', self.arguments)]

    @property
    def data(self) -> bytes:
        """The bytes that were written or sent, as far as the trace shows them."""
        return "".join(self.paths).encode("latin-1")

    def _path_of(self, match: re.Match[str] | None) -> str:
        return text(match[1]) if match else ""


def text(quoted: str) -> str:
    """Undo the hexadecimal of a string: one character a byte."""
    return HEX.sub(lambda m: bytes.fromhex(m[0].replace("\\x", "")).decode("latin-1"), quoted)


def parse(lines: Iterable[str]) -> list[Call]:
    """Read the calls of a trace; one that is interrupted in the log is put together again."""
    calls: list[Call] = []
    unfinished: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = LINE.match(line)
        if not match or match["rest"].startswith(("+++", "---")):
            continue
        pid, rest, began = match["pid"], match["rest"], number
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = (number, rest.removesuffix("<unfinished ...>").rstrip())
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            began, start = unfinished.pop(pid)
            rest = start + resumed[1]
        if call := re.match(r"(\w+)\((.*)\) += (.*)", rest):
            calls.append(Call(call[1], call[2], call[3], began, number))
    return calls


def answered(calls: Iterable[Call]) -> list[tuple[str, Call]]:
    """Return SOP Instance UID and call of every C-STORE response with status 0x0000."""
    found = []
    for call in calls:
        data = call.data if call.name in ("sendto", "sendmsg", "write") else b""
        if not data or data[0] != P_DATA_TF or RESPONSE_UID not in data:
            continue
        status = data.index(RESPONSE_STATUS) + len(RESPONSE_STATUS)
        if data[status : status + 2] != b"\0\0":
            continue
        at = data.index(RESPONSE_UID) + 4
        length = int.from_bytes(data[at : at + 4], "little")
        found.append((data[at + 4 : at + 4 + length].rstrip(b"\0 ").decode(), call))
    return found


def violations(calls: list[Call]) -> list[str]:
    """Return what breaks P1, a sentence for each answered instance; empty when it holds."""
    problems = []
    for number, (uid, response) in enumerate(answered(calls), 1):
        if problem := _violation(calls, uid, response):
            problems.append(f"instance {number}: {problem}")
    return problems


def _violation(calls: list[Call], uid: str, response: Call) -> str | None:
    first = _first(calls, lambda c: _writes(c) and uid.encode() in c.data and ".part" in c.path)
    if first is None:
        return "it was never written to a temporary file"
    partial = first.path
    written = max(c.ended for c in calls if _writes(c) and c.path == partial)
    rename = _first(calls, lambda c: c.name.startswith("rename") and c.paths[:1] == [partial])
    if rename is None or not rename.result.startswith("0"):
        return "the temporary file was never renamed"
    folder = str(PurePosixPath(rename.paths[1]).parent)
    file_synced = _first(calls, lambda c: _synced(c, partial) and c.began > written)
    if file_synced is None or file_synced.ended > rename.began:
        return "the file was not synced after its last write and before the rename"
    folder_synced = _first(calls, lambda c: _synced(c, folder) and c.began > rename.ended)
    if folder_synced is None or folder_synced.ended > response.began:
        return "the folder was not synced after the rename and before the answer"
    return None


def _first(calls: list[Call], wanted) -> Call | None:
    return next((call for call in calls if wanted(call)), None)


def _writes(call: Call) -> bool:
    return call.name in ("write", "writev")


def _synced(call: Call, path: str) -> bool:
    return call.name == "fsync" and call.path == path and call.result.startswith("0")
