"""The command itself: help, exit codes, where settings come from, and a quick start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from tests.cli.conftest import Ran
from tfkt_node.cli.app import app
from tfkt_node.cli.options import settings_file

Command = Callable[..., Ran]

COMMANDS = (
    "serve", "score", "demo", "check", "series list", "series show", "deliveries list",
    "deliveries retry", "audit verify", "db upgrade", "bench model", "train", "evaluate",
    "convert",
)  # fmt: skip

HEAVY = (
    "torch", "timm", "openvino", "pydicom", "pynetdicom", "highdicom", "sqlalchemy", "alembic",
    "matplotlib", "scipy", "apscheduler", "pydantic",
)  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    """Each command explains itself, and exits with 0 when asked to."""
    ran = command(*name.split(), "--help")

    assert 0 == ran.code
    assert f"Usage: tfkt-node {name}" in ran.out


def parameters() -> Iterator[tuple[str, str, object]]:
    def walk(group: object, path: str) -> Iterator[tuple[str, str, object]]:
        for name, sub in getattr(group, "commands", {}).items():
            yield from walk(sub, f"{path} {name}".strip())
        for parameter in getattr(group, "params", []):
            yield path, parameter.name, getattr(parameter, "help", None)

    yield from walk(typer.main.get_command(app), "")


def test_every_option_has_help() -> None:
    """No option and no argument of any command is without an explanation."""
    silent = [(path, name) for path, name, text in parameters() if not text]

    assert [] == silent


def test_first_help_names_all_commands(command: Command) -> None:
    """`tfkt-node --help` lists every group of commands, none cut off in the middle."""
    ran = command("--help")

    for name in COMMANDS:
        assert f"\n  {name.split()[0]} " in ran.out
    listed = ran.out.partition("Commands:")[2].splitlines()
    ours = [line for line in listed if not line.startswith(("  train", "  evaluate"))]
    assert not any(line.endswith("...") for line in ours)


def test_version(command: Command) -> None:
    """--version prints one line and exits with 0."""
    ran = command("--version")

    assert (0, 1) == (ran.code, ran.out.count("\n"))
    assert ran.out.startswith("tfkt-node ")


def test_start_is_light() -> None:
    """The command starts without any of the heavy packages (they are imported by need)."""
    code = f"import sys; import tfkt_node.cli.app; print(*(set({HEAVY}) & set(sys.modules)))"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert [] == loaded.stdout.split()


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["score"], ["score", "--nonsense"], ["series", "show"], []]
)
def test_wrong_usage_exits_with_2(command: Command, arguments: list[str]) -> None:
    """A wrong command, option or missing argument is exit code 2."""
    assert 2 == command(*arguments).code


def test_wrong_settings_exit_with_2(command: Command, tmp_path: Path) -> None:
    """Every error of the settings is one line, before anything is opened or listened on."""
    path = tmp_path / "wrong.toml"
    path.write_text("[reception]\nprot = 1\n[series]\nquiet_s = -1\n", encoding="utf-8")

    ran = command("--config", path, "serve")

    assert 2 == ran.code
    assert 2 == len(ran.err.splitlines())
    assert "did you mean 'port'?" in ran.err
    assert [path] == list(tmp_path.iterdir())


def test_named_settings_must_exist(command: Command, tmp_path: Path) -> None:
    """A settings file that is named and not there is wrong usage, never silently the defaults."""
    ran = command("--config", tmp_path / "none.toml", "check")

    assert 2 == ran.code
    assert "does not exist" in ran.err


def test_settings_are_looked_for(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config wins over TFKT_NODE_CONFIG, and that over ./tfkt_node.toml."""
    for name in ("option", "variable", "tfkt_node"):
        (tmp_path / f"{name}.toml").write_text(f"[{name}]\n", encoding="utf-8")

    assert "tfkt_node is not a setting" in command("check").err
    monkeypatch.setenv("TFKT_NODE_CONFIG", str(tmp_path / "variable.toml"))
    assert "variable is not a setting" in command("check").err
    assert "option is not a setting" in command("--config", "option.toml", "check").err


def test_without_a_file_defaults_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no settings file is found, none is used."""
    monkeypatch.setattr("tfkt_node.cli.options.PLACES", (tmp_path / "tfkt_node.toml",))
    context = typer.Context(typer.main.get_command(app))

    assert settings_file(context) is None


@pytest.mark.parametrize("arguments", [["series", "list"], ["audit", "verify"]])
def test_no_database_is_made_by_asking(
    command: Command, config: Callable[[str], Path], arguments: list[str], tmp_path: Path
) -> None:
    """Looking at an audit that is not there says how to make it, and makes nothing."""
    ran = command("--config", config(""), *arguments)

    assert 2 == ran.code
    assert "tfkt-node db upgrade" in ran.err
    assert not (tmp_path / "spool").exists()


@pytest.mark.station
def test_a_file_in_the_way_is_named(
    command: Command, config: Callable[[str], Path], tmp_path: Path
) -> None:
    """An error of the system is one sentence with the place."""
    (tmp_path / "spool").write_text("a file where a folder belongs", encoding="utf-8")

    ran = command("--config", config(""), "db", "upgrade")

    assert 1 == ran.code
    assert f"{tmp_path / 'spool'}: File exists" in ran.err
