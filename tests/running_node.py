"""A real node in a process of its own, for tests from the outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tfkt_node.audit import chain
from tfkt_node.audit.store import Store, upgrade
from tfkt_node.reception.instances import Spool

QUIET_S = 3.0
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(what: str, look: Callable[[], T], timeout_s: float = 60.0) -> T:
    """Look until the answer is true, and return it; fail with `what` when time is up."""
    end = time.monotonic() + timeout_s
    while not (answer := look()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.1)
    return answer


class RunningNode:
    """`tfkt-node serve` with a settings file of its own; started and killed at will."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        destinations: Sequence[tuple[str, str, int]] = (),
        settings: str = "",
        *,
        quiet_s: float = QUIET_S,
        lease_s: float = 3.0,
    ) -> None:
        """destinations: (name, AE title, port). settings: further TOML, ahead of the peers."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.spool_folder = folder / "spool"
        self.database_url = database_url or f"sqlite:///{self.spool_folder / 'audit.db'}"
        self.log = folder / "node.log"
        self._config = folder / "tfkt_node.toml"
        peers = "".join(
            f'[[peers]]\nname = "{name}"\nae_title = "{title}"\nhost = "127.0.0.1"\n'
            f"port = {port}\ndeliver = true\n"
            for name, title, port in destinations
        )
        self._config.write_text(
            f"[reception]\nport = {self.port}\ndisk_reserve_mb = 1\n"
            f'[storage]\nspool = "{self.spool_folder}"\ndatabase = "{self.database_url}"\n'
            f"[series]\nquiet_s = {quiet_s}\n"
            f"[scoring]\nlease_s = {lease_s}\nretry_delay_s = 0.5\n"
            "[delivery]\nfirst_retry_s = 0.5\nconnection_timeout_s = 1\nresponse_timeout_s = 3\n"
            + settings
            + peers
        )
        self.spool_folder.mkdir(exist_ok=True)
        upgrade(self.database_url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tfkt_node", "--config", str(self._config), "serve"],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        wait_for("the node's port opening", self._answers, 60)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = Store(self.database_url)
        try:
            yield store
        finally:
            store.close()

    def states(self) -> list[str]:
        """State of the newest revision of each series."""
        with self.store() as store:
            return [row.state for row in store.series_rows()]

    def assert_whole(self) -> None:
        """Rows and files agree, event numbers have no gap, the chain holds."""
        spool = Spool(self.spool_folder)
        with self.store() as store:
            files = {path.stem for path in spool.stored_files()}
            assert files == store.known_digests()
            assert not list(self.spool_folder.rglob("*.part"))
            report = chain.verify(store)
            assert report.holds, report


@contextmanager
def running(node: RunningNode) -> Iterator[RunningNode]:
    node.start()
    try:
        yield node
    finally:
        node.stop()
