"""`serve`: what keeps a node from starting is one sentence."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

pytestmark = pytest.mark.station

Command = Callable[..., Ran]


def test_a_taken_port_is_one_sentence(command: Command, scoring_config: Path) -> None:
    """A port that another program holds is told with its number: exit 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = scoring_config.read_text(encoding="utf-8")
        scoring_config.write_text(f"[reception]\nport = {port}\n{text}", encoding="utf-8")
        assert 0 == command("--config", scoring_config, "db", "upgrade").code

        ran = command("--config", scoring_config, "serve")

    assert 1 == ran.code
    said = ran.err.splitlines()[-1]
    assert said.startswith(f"tfkt-node: cannot listen on 127.0.0.1:{port} (Address already in use)")


def test_no_database_names_the_command(command: Command, scoring_config: Path) -> None:
    """Without a database `serve` says which command makes it: exit 2."""
    ran = command("--config", scoring_config, "serve")

    assert 2 == ran.code
    assert "tfkt-node db upgrade" in ran.err
