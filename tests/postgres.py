"""A PostgreSQL of the tests' own: made in a folder of its own, gone after the session.

It listens on a Unix socket only, so that no port is taken, and belongs to this session alone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "fsync": "off",  # a test's database need not outlive a power cut
}
MEMORY = Path("/dev/shm")
ROOM = 2 << 30


class Databases:
    """Fresh databases of one server: `url = databases()`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def __call__(self, template: str = "template0") -> str:
        """Make a database, empty or a copy of the one named `template`, and return its URL."""
        name = f"test_{next(self._numbers)}"
        self._ask(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return f"postgresql+psycopg://tests@/{name}?host={self._folder}"

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        self._ask(f'DROP DATABASE "{name_of(url)}" WITH (FORCE)')

    def take_away(self, url: str) -> None:
        """Let a database be away, until `bring_back`; nobody may be connected."""
        self._ask(f'ALTER DATABASE "{name_of(url)}" RENAME TO "{name_of(url)}_away"')

    def bring_back(self, url: str) -> None:
        """End what `take_away` began."""
        self._ask(f'ALTER DATABASE "{name_of(url)}_away" RENAME TO "{name_of(url)}"')

    def _ask(self, statement: str) -> None:
        with psycopg.connect(
            host=str(self._folder), user="tests", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)


def name_of(url: str) -> str:
    """Return the name of a database from its URL."""
    return url.partition("@/")[2].partition("?")[0]


@contextmanager
def running_postgresql(initdb: str) -> Iterator[Databases]:
    """Start a server, yield what makes databases in it, and stop it by its own pid."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    # pytest's own folders are closed to other users, and PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="tfkt-pg-", dir=MEMORY if in_memory else None))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    pg_ctl = str(Path(initdb).with_name("pg_ctl"))
    options = " ".join(f"-c {name}={value!r}" for name, value in OPTIONS.items())
    options += f" -c unix_socket_directories={folder}"

    def ask(*command: str) -> None:
        subprocess.run(
            command,
            user=user,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    data, log = str(folder / "data"), str(folder / "log")
    try:
        ask(initdb, "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--no-sync")
        ask(pg_ctl, "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield Databases(folder)
        finally:
            ask(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)
