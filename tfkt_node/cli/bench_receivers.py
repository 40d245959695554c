"""The receivers that `tfkt-node bench reception` sets side by side, each a process of its own.

Each is started in an empty folder and ended by its process id. This node runs as it is installed,
with all its durability, on settings of its own; Orthanc and DCMTK run with their defaults.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkt_node.audit.store import upgrade
from tfkt_node.records import Misconfigured

START_S = 60.0
"""Seconds a receiver may take until it listens."""

SYSTEM_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
"""Debian keeps Orthanc out of some users' PATH."""

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith("TFKT_NODE_")
} | {"TCP_NODELAY": "1"}
"""For senders and receivers alike: DCMTK leaves Nagle's algorithm on unless it is told."""


@dataclass(frozen=True, slots=True)
class Listening:
    """A receiver that listens. log: what it writes; kept: counts the instances it has."""

    ae_title: str
    port: int
    log: Path
    kept: Callable[[], int]
    is_this_node: bool = False


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver to be measured. program: what must be installed; run: starts it in a folder."""

    name: str
    program: str
    run: Callable[[Path], Any]
    remark: str

    @property
    def is_installed(self) -> bool:
        """Whether there is something to measure."""
        return find(self.program) is not None


def find(program: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(program, path=SYSTEM_PATH)


@contextmanager
def this_node(folder: Path) -> Iterator[Listening]:
    """Run this node; it scores nothing meanwhile, for its series are not quiet for so long."""
    spool, config, port = folder / "spool", folder / "tfkt_node.toml", _free_port()
    spool.mkdir()
    url = f"sqlite:///{spool / 'audit.db'}"
    upgrade(url)
    config.write_text(
        f"[reception]\nport = {port}\ndisk_reserve_mb = 0\n[series]\nquiet_s = 86400\n"
        f"[storage]\nspool = {json.dumps(str(spool))}\ndatabase = {json.dumps(url)}\n"
        '[logging]\nlevel = "INFO"\nformat = "json"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "tfkt_node", "--config", str(config), "serve"]
    with _running(command, folder, port) as log:
        instances = spool / "instances"
        yield Listening("TFKT_NODE", port, log, lambda: _count(instances, "*.dcm"), True)


@contextmanager
def orthanc(folder: Path) -> Iterator[Listening]:
    """Run Orthanc with its defaults, but for places, ports and the plug-ins, of which it has none.

    By default it syncs each file (SyncStorageArea), and neither its folders nor its index.
    """
    port, storage = _free_port(), folder / "storage"
    config = folder / "orthanc.json"
    settings = {
        "StorageDirectory": str(storage), "IndexDirectory": str(storage), "Plugins": [],
        "DicomAet": "ORTHANC", "DicomPort": port, "HttpPort": _free_port(),
    }  # fmt: skip
    config.write_text(json.dumps(settings), encoding="utf-8")
    with _running([str(find("Orthanc")), str(config)], folder, port) as log:
        yield Listening("ORTHANC", port, log, lambda: _count(storage, "????????-*"))


@contextmanager
def storescp(folder: Path) -> Iterator[Listening]:
    """Run DCMTK's storescp, which writes files and syncs nothing: the ceiling."""
    port, kept = _free_port(), folder / "kept"
    kept.mkdir()
    options = ["--fork", "--max-pdu", "131072", "--output-directory", str(kept)]
    command = [str(find("storescp")), *options, "--aetitle", "STORESCP", str(port)]
    with _running(command, folder, port) as log:
        yield Listening("STORESCP", port, log, lambda: _count(kept, "*"))


RECEIVERS = (
    Receiver("tfkt-node", sys.executable, this_node, "file and folder synced before each answer"),
    Receiver("Orthanc", "Orthanc", orthanc, "its defaults: file synced"),
    Receiver("DCMTK storescp", "storescp", storescp, "nothing synced, no index: the ceiling"),
)


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[Path]:
    """Run a process until the block ends, from when it listens; yield its log."""
    path = folder / "log.txt"
    with path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_listening(process, port, path)
        yield path
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    last = log.read_text(errors="replace").strip().rpartition("\n")[2]
    raise Misconfigured(f"a receiver does not listen on port {port}: {last[:200]}")


def _count(folder: Path, pattern: str) -> int:
    return sum(path.is_file() for path in folder.rglob(pattern))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
