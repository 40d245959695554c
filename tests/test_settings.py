"""Settings: file, code and defaults agree; mistakes are named; the environment wins."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from tfkt_node import settings
from tfkt_node.records import Misconfigured, Verdict
from tfkt_node.settings import Peer, Settings, data_folder, load

SHIPPED = data_folder("config") / "tfkt_node.toml"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees settings of the machine it runs on."""
    import os

    for name in [name for name in os.environ if name.upper().startswith("TFKT_NODE_")]:
        monkeypatch.delenv(name)


def options(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (table, option, description) of every option outside peers."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from options(kind, f"{place}.{name}" if place else name)
        elif name != "peers":
            yield place, name, field.description or ""


def commented_options(text: str) -> dict[tuple[str, str], str]:
    """Read (table, option) -> the comment lines above it, joined."""
    found: dict[tuple[str, str], str] = {}
    table, comment = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
            continue
        if header := re.fullmatch(r"\[(.+)\]", line):
            table = header[1]
        elif option := re.match(r"(\w+) = ", line):
            found[table, option[1]] = " ".join(comment)
        comment = []
    return found


def worked_example(number: int) -> str:
    """Uncomment one example at the end of the shipped file."""
    text = SHIPPED.read_text(encoding="utf-8").split(f"# ---- Example {number}")[1]
    text = text.split("# ---- Example")[0]
    lines = [line.removeprefix("#").strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if re.match(r"\[|\w+ = ", line))


def problems(path: Path | None) -> str:
    with pytest.raises(Misconfigured) as caught:
        load(path)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_file_says_the_defaults() -> None:
    """The shipped file and the code have the same options with the same values."""
    said = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    defaults = Settings().model_dump(mode="json", exclude={"peers"})

    assert defaults == said


def test_shipped_file_gives_each_meaning() -> None:
    """Above each option of the shipped file stands the meaning that the code gives it."""
    comments = commented_options(SHIPPED.read_text(encoding="utf-8"))

    for table, name, description in options(Settings):
        assert description, f"{table}.{name} has no description"
        assert description in comments[table, name], f"[{table}] {name}"


def test_shipped_file_explains_peers() -> None:
    """Each option of a peer is explained in the words of the code."""
    text = SHIPPED.read_text(encoding="utf-8")

    for name, field in Peer.model_fields.items():
        assert field.description
        assert re.search(rf"^#   {name} +{re.escape(field.description)}$", text, re.M), name


@pytest.mark.parametrize(("number", "host"), [(1, "10.20.0.1"), (2, "0.0.0.0")])
def test_worked_examples_work(tmp_path: Path, number: int, host: str) -> None:
    """The examples of the shipped file are valid settings once their comment signs are gone."""
    text = worked_example(number)
    if "[reception]" not in text:
        text = f'[reception]\nhost = "{host}"\n{text}'

    loaded = load(write(tmp_path, text))

    assert host == loaded.reception.host
    assert ["pacs"] == [peer.name for peer in loaded.destinations]


def test_environment_wins_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment over file over default, option by option."""
    path = write(tmp_path, "[reception]\nport = 104\nmaximum_associations = 7\n")
    monkeypatch.setenv("TFKT_NODE_RECEPTION__PORT", "2104")

    loaded = load(path)

    assert 2104 == loaded.reception.port
    assert 7 == loaded.reception.maximum_associations
    assert "127.0.0.1" == loaded.reception.host


def test_bad_variable_is_blamed_on_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in a variable names the variable, not the file."""
    path = write(tmp_path, "[reception]\nport = 104\n")
    monkeypatch.setenv("TFKT_NODE_RECEPTION__PROT", "1")

    assert "environment: TFKT_NODE_RECEPTION__PROT is not a setting" in problems(path)


def test_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the environment reaches nested tables."""
    monkeypatch.setenv("TFKT_NODE_CRITERIA__ADULT__FLAG_AT", "NON_DIAGNOSTIC")

    loaded = load(None)

    assert Verdict.NON_DIAGNOSTIC is loaded.criteria.adult.flag_at
    assert Verdict.LIMITED is loaded.criteria.child.flag_at


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[reception]\nprot = 1", "reception.prot is not a setting; did you mean 'port'?"),
        ("[serie]\nquiet_s = 1", "serie is not a setting; did you mean 'series'?"),
        (
            "[criteria.adult]\nlimited_form = 1",
            "criteria.adult.limited_form is not a setting; did you mean 'limited_from'?",
        ),
        (
            '[[peers]]\nname = "a"\nae_title = "A"\nhots = "b"',
            "[[peers]] number 1, hots is not a setting; did you mean 'host'?",
        ),
    ],
)
def test_unknown_options_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    """An unknown key is refused by name, with the nearest known one."""
    assert sentence in problems(write(tmp_path, text))


def test_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is refused as a misspelt key is."""
    monkeypatch.setenv("TFKT_NODE_RECEPTON__PORT", "1")

    assert "did you mean TFKT_NODE_RECEPTION__…?" in problems(None)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[reception]\nport = 70000", "reception.port"),
        ('[reception]\nae_title = "LONGER_THAN_SIXTEEN"', "1 to 16 ASCII characters"),
        ('[reception]\nhost = "0.0.0.0"', "nobody could call"),
        ("[series]\nquiet_s = 0", "series.quiet_s"),
        ("[series]\nquiet_s = nan", "series.quiet_s"),
        ("[reception]\nsocket_timeout_s = inf", "reception.socket_timeout_s"),
        ("[criteria.adult]\nlimited_from = 3.0", "limited_from must not be above"),
        ("[criteria.adult]\nlimited_from = true", "expected a number"),
        ('[criteria.child]\nowner = ""', "criteria.child.owner"),
        ('[scoring]\ndevice = "cuda"', "needs scoring.engine 'torch'"),
        ('[[peers]]\nname = "a"\nae_title = "A"\ndeliver = true', "needs a host"),
        ('[[peers]]\nname = "a"\nae_title = "A"\nsend = true', "needs a network or a host"),
        ('[report]\ntimezone = "Berlin"', "write a name like Europe/Berlin"),
        ('[report]\ntimezone = "../etc/passwd"', "no such time zone here"),
        ("[reception", "not valid TOML"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, text: str, part: str) -> None:
    """A value that cannot work is refused with its place in the file."""
    assert part in problems(write(tmp_path, text))


def test_all_errors_at_once(tmp_path: Path) -> None:
    """Every error of a file is told in one go, one sentence each."""
    path = write(tmp_path, "[reception]\nport = -1\n[series]\nquiet_s = -1\n[nothing]\n")

    with pytest.raises(Misconfigured) as caught:
        load(path)

    assert 3 == len(caught.value.problems)


def test_absent_file_is_named(tmp_path: Path) -> None:
    """A settings file that is not there is an error, never silently the defaults."""
    assert "cannot be read" in problems(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.5", False), ("localhost.example", False)],
)  # fmt: skip
def test_loopback_is_this_machine_only(host: str, answer: bool) -> None:
    """P11: only addresses of this machine count as loopback, where any caller is admitted."""
    assert answer is settings.is_loopback(host)


def test_defaults_admit_nobody_from_outside() -> None:
    """P11: without settings the node listens on loopback only, and sends nothing to anybody."""
    loaded = load(None)

    assert settings.is_loopback(loaded.reception.host)
    assert ((), ()) == (loaded.peers, loaded.destinations)


def test_digest_names_the_values() -> None:
    """The digest of a group is the same for the same values and differs for others."""
    first = settings.Criteria()

    assert settings.digest(first) == settings.digest(settings.Criteria())
    assert settings.digest(first) != settings.digest(settings.Criteria(min_slices=6))
