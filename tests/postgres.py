"""A PostgreSQL of the tests' own: made in a folder of its own, gone after the session.

It listens on a Unix socket only, so that no port is taken, and belongs to this session alone.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # A test's database need not outlive a power cut.
    "fsync": "off",
}


@contextmanager
def running_postgresql(initdb: str) -> Iterator[Callable[..., str]]:
    """Yield a factory of fresh databases: `url = database()`, or `database(template=name)`."""
    # PostgreSQL refuses to run as root, and pytest's own folders are closed to other users.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="tfkt-pg-"))
    shutil.chown(folder, user)
    pg_ctl = str(Path(initdb).with_name("pg_ctl"))
    options = " ".join(f"-c {name}={value!r}" for name, value in OPTIONS.items())
    options += f" -c unix_socket_directories={folder}"

    def ask(*command: str) -> None:
        subprocess.run(
            command,
            user=user if os.geteuid() == 0 else None,
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
            yield _factory(folder)
        finally:
            ask(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _factory(folder: Path) -> Callable[..., str]:
    numbers = itertools.count(1)

    def database(template: str = "template0") -> str:
        """Make a database, empty or a copy of `template`, and return its URL."""
        name = f"test_{next(numbers)}"
        with psycopg.connect(
            host=str(folder), user="tests", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return f"postgresql+psycopg://tests@/{name}?host={folder}"

    return database
