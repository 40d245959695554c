"""A real Orthanc for end-to-end tests: started in a folder of its own, ended by its own process id.

    with OrthancServer(tmp_path / "pacs", {"NODE": ("127.0.0.1", 11112)}) as pacs:
        ...                     # C-STORE to pacs.ae_title at 127.0.0.1:pacs.dicom_port
        pacs.instances()        # what it has, by its own identifiers
        pacs.file(instance)     # the Part 10 file of one of them

Options of its configuration file can be given as keyword arguments, by Orthanc's own names.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

START_S = 30.0
"""Seconds that Orthanc may take to answer after its start."""

ATTEMPTS = 3
"""Starts before giving up: between choosing a port and using it, another process may take it."""


class OrthancServer:
    """One Orthanc process (Debian package `orthanc`) on free loopback ports.

    modalities: AE title -> (host, port), the applications that it may send to; it takes C-STORE
    from anyone.
    """

    ae_title = "ORTHANC"

    def __init__(
        self,
        folder: Path,
        modalities: Mapping[str, tuple[str, int]] | None = None,
        **options: Any,
    ) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.modalities = dict(modalities or {})
        self.options = options
        self.dicom_port = self.http_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError with its log if it does not."""
        for _ in range(ATTEMPTS):
            self.dicom_port, self.http_port = free_port(), free_port()
            configuration = self.folder / "orthanc.json"
            configuration.write_text(json.dumps(self._configuration()))
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [_command(), str(configuration)], stdout=log, stderr=subprocess.STDOUT
                )
            if self._answers():
                return
            self.stop()
        raise RuntimeError(f"Orthanc did not start:\n{self._log.read_text(errors='replace')}")

    def stop(self) -> None:
        """End the process and wait for it. Starting again keeps what it has stored."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def instances(self) -> list[str]:
        """Return Orthanc's identifiers of the instances it has."""
        found: list[str] = json.loads(self._get("/instances"))
        return found

    def file(self, instance: str) -> bytes:
        """Return the file of an instance, as stored."""
        return self._get(f"/instances/{instance}/file")

    def tags(self, instance: str) -> dict[str, Any]:
        """Return the attributes of an instance by keyword, as Orthanc reads them."""
        found: dict[str, Any] = json.loads(self._get(f"/instances/{instance}/simplified-tags"))
        return found

    def add(self, content: bytes) -> None:
        """Let it store a file, as if it had been received."""
        self._get("/instances", content)

    def send(self, ae_title: str, resources: list[str]) -> None:
        """Have it send patients, studies, series or instances to one of its modalities."""
        self._get(f"/modalities/{ae_title}/store", json.dumps(resources).encode())

    def __enter__(self) -> OrthancServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.folder / "log.txt"

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": "tfkt-node tests",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": True,
            "DicomModalities": {
                ae: {"AET": ae, "Host": host, "Port": port, "AllowStorageCommitment": True}
                for ae, (host, port) in self.modalities.items()
            },
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
            **self.options,
        }

    def _answers(self) -> bool:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process and self._process.poll() is None:
            try:
                self._get("/system")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)  # another process's start gives nothing to wait on
            else:
                return True
        return False

    def _get(self, path: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, data=body, timeout=60) as answer:
            content: bytes = answer.read()
        return content


def _command() -> str:
    # Debian keeps it out of some users' PATH; require_tool("Orthanc") skips where it is absent.
    return shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "Orthanc"


def free_port() -> int:
    """Return a TCP port that is free on loopback just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
