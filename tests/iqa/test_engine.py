from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tfkt_node.iqa import bundle
from tfkt_node.iqa.engine import AIR_HU, GOLDEN_TOLERANCE_U, GRID, fit_to_grid, open_engine
from tfkt_node.records import Misconfigured, Permanent

ENGINES = ("openvino", "torch")


def noisy_slices(count: int) -> np.ndarray:
    """Slices that differ in noise, so that their order can be told from the quality."""
    random = np.random.default_rng(7)
    noise = random.standard_normal((count, GRID, GRID))
    return (40 + noise * np.linspace(5, 250, count)[:, None, None]).astype(np.float32)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, random_bundle):
    return open_engine(random_bundle, request.param, streams=2)


@pytest.mark.station
def test_golden_slices_come_out_as_written(engine, random_bundle):
    """Each engine repeats what training wrote, far within what an engine may differ by."""
    hu, expected = random_bundle.golden()

    assert len(hu) == 3
    assert hu.dtype == np.float32
    assert np.abs(engine.quality(hu) - expected).max() < 1e-3 < GOLDEN_TOLERANCE_U


@pytest.mark.station
def test_engines_agree(random_bundle):
    """P12: both engines give the same quality, within 0.001 here (promised: 0.02)."""
    slices = noisy_slices(9)
    openvino, torch = (open_engine(random_bundle, kind, streams=1) for kind in ENGINES)

    difference = openvino.quality(slices) - torch.quality(slices)

    assert np.abs(difference).max() < 1e-3
    assert openvino.name != torch.name


@pytest.mark.station
def test_quality_keeps_the_order_of_slices(engine):
    """Slices computed side by side come back in the order they went in."""
    slices = noisy_slices(7)
    one_by_one = np.array([engine.quality(hu[None])[0] for hu in slices])

    together = engine.quality(slices)

    assert together.dtype == np.float64
    assert np.allclose(together, one_by_one, atol=1e-5)
    assert len(set(np.round(together, 3))) > 3


@pytest.mark.station
def test_precision_in_force_is_single(engine):
    """The precision that goes into the audit is the one that computes, and it is f32."""
    assert engine.precision == "f32"


@pytest.mark.station
def test_no_slice_has_no_quality(engine):
    """An empty stack is no error."""
    assert engine.quality(np.empty((0, GRID, GRID), np.float32)).shape == (0,)


@pytest.mark.station
@pytest.mark.parametrize(
    "slices",
    [
        np.zeros((1, 256, 256), np.float32),
        np.zeros((GRID, GRID), np.float32),
        np.zeros((1, GRID, GRID), np.float64),
        np.full((1, GRID, GRID), np.nan, np.float32),
    ],
    ids=["matrix", "one slice", "double", "NaN"],
)
def test_wrong_slices_are_refused(engine, slices):
    """P6: what is not a finite slice on the grid gets no quality."""
    with pytest.raises(ValueError, match="slices must"):
        engine.quality(slices)


@pytest.fixture
def altered(random_bundle, tmp_path):
    """Return a function: the random bundle with one file rewritten, its card sealed soundly."""

    def alter(name: str, write: Callable[[Path], None]) -> bundle.Bundle:
        folder = tmp_path / "altered"
        shutil.copytree(random_bundle.folder, folder)
        write(folder / name)
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        lines = (folder / bundle.CARD).read_text().splitlines(keepends=True)[:-1]
        row = f'"{name}" = '
        lines = [f'{row}"{digest}"\n' if line.startswith(row) else line for line in lines]
        (folder / bundle.CARD).write_text(bundle.seal("".join(lines)))
        return bundle.load(folder)

    return alter


@pytest.mark.station
@pytest.mark.parametrize("kind", ENGINES)
def test_golden_mismatch_is_an_error(random_bundle, altered, kind):
    """An engine that does not repeat the golden slices never opens."""
    hu, u = random_bundle.golden()
    u[1] += 2 * GOLDEN_TOLERANCE_U
    other = altered(bundle.GOLDEN, lambda path: np.savez_compressed(path, hu=hu, u=u))

    with pytest.raises(Permanent, match=r"golden slices .* differs by 0\.02") as caught:
        open_engine(other, kind, streams=1)
    assert caught.value.cure


@pytest.mark.station
def test_graph_that_does_not_compile_is_an_error(altered):
    """A graph of another kind is said in a sentence with its cure, not in OpenVINO's words."""
    other = altered(bundle.GRAPH, lambda path: path.write_text("<net/>"))

    with pytest.raises(Permanent, match="cannot compile the graph of bundle") as caught:
        open_engine(other, "openvino", streams=1)
    assert caught.value.cure


@pytest.mark.station
def test_architecture_of_another_version_is_an_error(altered):
    """Weights that do not fit the card's architecture are named as such."""

    def widen(card: Path) -> None:
        card.write_text(card.read_text().replace("dim = 64", "dim = 96"))

    with pytest.raises(Permanent, match="cannot be built from its card"):
        open_engine(altered(bundle.CARD, widen), "torch", streams=1)


@pytest.mark.station
def test_missing_torch_names_the_extra(random_bundle, monkeypatch):
    """Without torch the settings' mistake is said in a sentence with its cure."""
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(Misconfigured, match=r"package torch.*tfkt-node\[torch\]"):
        open_engine(random_bundle, "torch", streams=1)


@pytest.mark.station
def test_missing_cuda_device_is_a_mistake_of_the_settings(random_bundle, torch):
    """cuda on a machine without it is answered with the setting to change."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")

    with pytest.raises(Misconfigured, match=r"scoring\.device"):
        open_engine(random_bundle, "torch", "cuda")


@pytest.mark.gpu
def test_cuda_agrees_with_openvino(random_bundle, torch):
    """P12: a GPU gives the quality that the CPU gives."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    slices = noisy_slices(20)

    cuda = open_engine(random_bundle, "torch", "cuda").quality(slices)

    assert np.abs(cuda - open_engine(random_bundle, "openvino").quality(slices)).max() < 1e-3


def test_a_slice_on_the_grid_is_left_alone():
    """512 x 512 goes through untouched."""
    hu = noisy_slices(1)[0]

    assert np.array_equal(fit_to_grid(hu), hu)


@pytest.mark.parametrize("shape", [(256, 256), (511, 512), (512, 300), (1, 1)])
def test_a_smaller_slice_is_centred_on_air(shape):
    """Every value is kept, all round is air."""
    hu = np.random.default_rng(1).normal(50, 20, shape).astype(np.float32)

    fitted = fit_to_grid(hu)
    top, left = (GRID - shape[0]) // 2, (GRID - shape[1]) // 2
    inside = fitted[top : top + shape[0], left : left + shape[1]]

    assert fitted.shape == (GRID, GRID)
    assert np.array_equal(inside, hu)
    assert (fitted == AIR_HU).sum() == GRID * GRID - hu.size


@pytest.mark.parametrize("shape", [(768, 768), (1024, 1024), (568, 568), (513, 513)])
def test_a_larger_slice_keeps_its_means(shape):
    """Averaging over areas keeps a flat slice flat and the mean of any slice."""
    hu = np.random.default_rng(1).normal(50, 20, shape).astype(np.float32)

    fitted = fit_to_grid(hu)

    assert fitted.dtype == np.float32
    assert fitted.mean() == pytest.approx(hu.mean(), abs=1e-3)
    assert np.allclose(fit_to_grid(np.full(shape, 37.0, np.float32)), 37.0, atol=1e-3)


def test_double_matrix_is_the_mean_of_four():
    """1024 to 512: each pixel is the mean of its own four."""
    hu = np.random.default_rng(1).normal(50, 20, (1024, 1024)).astype(np.float32)

    expected = hu.reshape(512, 2, 512, 2).mean(axis=(1, 3))

    assert np.allclose(fit_to_grid(hu), expected, atol=1e-3)


def test_a_wide_slice_keeps_its_shape():
    """A matrix that is not square is padded with air first, not stretched."""
    fitted = fit_to_grid(np.zeros((512, 1024), np.float32))

    assert (fitted[128:384] == 0).all()
    assert (fitted[:128] == AIR_HU).all()
    assert (fitted[384:] == AIR_HU).all()


@pytest.mark.station
def test_openvino_calls_nobody(tmp_path: Path) -> None:
    """OpenVINO's telemetry, which reports each import and leaves files behind, is not there."""
    script = (
        "import sys; from tfkt_node.iqa.engine import import_openvino; import_openvino();"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )

    subprocess.run(
        [sys.executable, "-c", script], env={"HOME": str(tmp_path)}, cwd=ROOT, check=True
    )

    assert [] == list(tmp_path.iterdir())
