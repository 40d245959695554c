from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tfkt_node.iqa import bundle
from tfkt_node.records import Misconfigured, Permanent

TABLES = """\
name = "test"
version = "1.2"
[architecture]
[input]
grid = 512
window_hu = [-1000.0, 400.0]
channels = 1
[output]
score_range = [0.0, 4.0]
[scope]
[calibration]
slope = 1.0
shift = 0.5
below = 0.6
above = 0.4
coverage = 0.9
[data]
[hashes]
"""


def write(folder: Path, tables: str = TABLES) -> Path:
    """A folder that loading accepts; the network's files hold a few bytes each."""
    folder.mkdir()
    for name in bundle.FILES:
        (folder / name).write_bytes(f"content of {name}".encode())
    hashes = "".join(
        f'"{name}" = "{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"\n'
        for name in bundle.FILES
    )
    (folder / bundle.CARD).write_text(bundle.seal(tables + hashes))
    return folder


def test_sound_bundle_loads(tmp_path):
    """What was written is read: name, version, calibration; the digest is that of the card."""
    folder = write(tmp_path / "b")

    loaded = bundle.load(folder)

    assert (loaded.name, loaded.version, loaded.folder) == ("test", "1.2", folder)
    assert loaded.calibration.shift == 0.5
    assert loaded.digest == hashlib.sha256((folder / "card.toml").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", [*bundle.FILES, bundle.CARD])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_flipped_bit_is_refused(tmp_path, name, place):
    """One changed bit in any file of a bundle, the card included, is an error naming the file."""
    folder = write(tmp_path / "b")
    content = bytearray((folder / name).read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[place]] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(Permanent, match=name) as caught:
        bundle.load(folder)
    assert str(folder) in caught.value.cure


def test_any_flipped_bit_of_the_card_is_refused(tmp_path):
    """Nothing of the card may change: not a threshold, not a listed hash, not its own hash."""
    folder = write(tmp_path / "b")
    content = (folder / bundle.CARD).read_bytes()

    for position in range(0, len(content), 5):
        changed = bytearray(content)
        changed[position] ^= 1
        (folder / bundle.CARD).write_bytes(changed)
        with pytest.raises(Permanent, match=bundle.CARD):
            bundle.load(folder)


@pytest.mark.parametrize("name", bundle.FILES)
def test_missing_file_is_refused(tmp_path, name):
    """A file that is gone is named, with what to do."""
    folder = write(tmp_path / "b")
    (folder / name).unlink()

    with pytest.raises(Permanent, match=name):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[scope]\n", "", r"\[scope\]"),
        ("slope = 1.0", "slope = -1.0", "slope"),
        ("slope = 1.0\n", "", "slope"),
        ("slope = 1.0", "slope = inf", "slope must hold finite numbers: got inf"),
        ("shift = 0.5", "shift = nan", "shift must hold finite numbers: got nan"),
        ("shift = 0.5", 'shift = "x"', "shift must hold finite numbers: got 'x'"),
        ('name = "test"\n', "", "name"),
    ],
)
def test_unfit_card_is_refused(tmp_path, old, new, named):
    """A sealed card that does not say what this version needs is an error, not a default."""
    folder = write(tmp_path / "b", TABLES.replace(old, new))

    with pytest.raises(Permanent, match=named):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("grid = 512", "grid = 256", r"\[input\] grid = 256, this version does 512"),
        ("[-1000.0, 400.0]", "[-1024.0, 3071.0]", r"\[input\] window_hu = .*3071"),
        ("channels = 1", "channels = 3", r"\[input\] channels = 3"),
        ("channels = 1\n", "", r"\[input\] channels = None"),
        ("[0.0, 4.0]", "[0.0, 5.0]", r"\[output\] score_range = \[0.0, 5.0\].*\[0.0, 4.0\]"),
    ],
)
def test_card_that_says_other_than_the_code_does_is_refused(tmp_path, old, new, told):
    """A window or a range that this version does not compute would give scores another meaning."""
    assert old in TABLES
    folder = write(tmp_path / "b", TABLES.replace(old, new))

    with pytest.raises(Permanent, match=told):
        bundle.load(folder)


def test_file_without_a_hash_is_refused(tmp_path):
    """No file of a bundle is taken on trust."""
    folder = write(tmp_path / "b")
    card = (folder / bundle.CARD).read_text().splitlines(keepends=True)
    kept = [line for line in card[:-1] if not line.startswith(f'"{bundle.GOLDEN}"')]
    (folder / bundle.CARD).write_text(bundle.seal("".join(kept)))

    with pytest.raises(Permanent, match=bundle.GOLDEN):
        bundle.load(folder)


def test_hash_that_is_no_text_is_refused(tmp_path):
    """A card that lists anything but text is as one that lists nothing."""
    folder = write(tmp_path / "b")
    lines = (folder / bundle.CARD).read_text().splitlines(keepends=True)[:-1]
    odd = [f'"{bundle.GOLDEN}" = 7\n' if bundle.GOLDEN in line else line for line in lines]
    (folder / bundle.CARD).write_text(bundle.seal("".join(odd)))

    with pytest.raises(Permanent, match=bundle.GOLDEN):
        bundle.load(folder)


def test_unknown_name_tells_what_there_is():
    """A wrong name in the settings is answered with the setting and what may stand there."""
    with pytest.raises(Misconfigured, match=r"no-such-bundle.*scoring\.bundle"):
        bundle.load("no-such-bundle")


def test_serving_side_imports_no_torch():
    """Reading bundles, engines and scores needs no torch: it is an extra of 1 GB."""
    code = (
        "import sys, tfkt_node.iqa.bundle, tfkt_node.iqa.engine, tfkt_node.iqa.uncertainty\n"
        "heavy = {'torch', 'timm', 'openvino', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    root = Path(__file__).parents[2]

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
