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
from tfkt_node.iqa.bundle import GRID
from tfkt_node.iqa.engine import (
    AIR_HU,
    GOLDEN_TOLERANCE_U,
    OpenVinoEngine,
    fit_to_grid,
    import_openvino,
    open_engine,
)
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
    assert np.abs(engine.quality(hu) - expected).max() < 1e-3 < GOLDEN_TOLERANCE_U["f32"]


@pytest.mark.station
def test_engines_agree(random_bundle):
    """P12: both engines give the same readings, within 0.001 here (promised of u: 0.02)."""
    slices = noisy_slices(9)
    openvino, torch = (open_engine(random_bundle, kind, streams=1) for kind in ENGINES)

    one, other = openvino.read(slices), torch.read(slices)

    for name in ("u", "local", "pooled"):
        assert np.allclose(getattr(one, name), getattr(other, name), atol=1e-3), name
    assert openvino.name != torch.name


@pytest.mark.station
@pytest.mark.parametrize("kind", ENGINES)
def test_local_quality_has_places_and_its_mean_is_the_quality(kind):
    """A slice whose lower half is noisy: the bundle's map is lower there, and its mean is u."""
    engine = open_engine(bundle.load("tfkt-v2-lite"), kind, streams=1)
    slices = noisy_slices(2)
    slices[:, : GRID // 2] = 40.0

    readings = engine.read(slices)

    assert readings.local.shape == (2, 8, 8)
    assert np.allclose(readings.local.mean(axis=(1, 2)), readings.u, atol=1e-5)
    top, *_, bottom = readings.local[1]
    assert top.mean() - bottom.mean() > 5 * top.std()
    assert np.array_equal(readings.u, engine.quality(slices))


@pytest.mark.station
def test_pooled_maps_are_of_the_slice(engine):
    """One row of maps a slice, in order; equal slices have equal rows, others do not."""
    slices = noisy_slices(3)[[0, 2, 0]]

    pooled = engine.read(slices).pooled

    assert pooled.dtype == np.float32
    assert np.allclose(pooled[0], pooled[2], atol=1e-5)
    assert np.abs(pooled[0] - pooled[1]).max() > 0.1


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
def test_no_slice_has_no_readings(engine):
    """An empty stack is no error, and its readings have the shapes of any other."""
    none, one = (engine.read(noisy_slices(2)[:count]) for count in (0, 1))

    for name in ("u", "local", "pooled"):
        assert getattr(none, name).shape == (0, *getattr(one, name).shape[1:])


@pytest.mark.station
@pytest.mark.parametrize("kind", ENGINES)
def test_card_names_the_precision_and_the_engine_what_computes(random_bundle, altered, kind):
    """A card may say bf16; what is named and held to its tolerance is what this machine does."""
    other = altered(bundle.CARD, lambda card: rewrite(card, '"f32"', '"bf16"'))

    engine = open_engine(other, kind, streams=1)

    can = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert engine.precision == ("bf16" if kind == "openvino" and can else "f32")


@pytest.mark.station
def test_unknown_precision_is_an_error(altered):
    """No engine guesses what a card means."""
    other = altered(bundle.CARD, lambda card: rewrite(card, '"f32"', '"i4"'))

    with pytest.raises(Permanent, match=r"precision must be one of .*: got 'i4'"):
        open_engine(other, "openvino", streams=1)


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


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


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
    u[1] += 2 * GOLDEN_TOLERANCE_U["f32"]
    other = altered(bundle.GOLDEN, lambda path: np.savez_compressed(path, hu=hu, u=u))

    with pytest.raises(Permanent, match=r"golden slices .* differs by 0\.02") as caught:
        open_engine(other, kind, streams=1)
    assert caught.value.cure


@pytest.mark.station
def test_graph_that_does_not_compile_is_an_error(altered):
    """A graph of another kind is said in a sentence with its cure, not in OpenVINO's words."""
    other = altered(bundle.GRAPH, lambda path: path.write_text("<net/>"))

    with pytest.raises(
        Permanent, match=r"bundle altered: openvino .* cannot compile the graph"
    ) as caught:
        open_engine(other, "openvino", streams=1)
    assert caught.value.cure


@pytest.mark.station
def test_graph_with_other_outputs_is_an_error(tmp_path):
    """A graph that gives the quality alone, as older bundles do, says what is missing."""
    openvino = import_openvino()
    from openvino import opset13 as ops

    hu = ops.parameter([1, GRID, GRID])
    mean = ops.reduce_mean(hu, ops.constant(np.array([1, 2])), keep_dims=False)
    openvino.save_model(openvino.Model([mean], [hu]), tmp_path / bundle.GRAPH)

    with pytest.raises(Permanent, match=r"expected quality .*local quality") as caught:
        OpenVinoEngine(tmp_path / bundle.GRAPH, streams=1)
    assert caught.value.cure


@pytest.mark.station
def test_architecture_of_another_version_is_an_error(altered):
    """Weights that do not fit the card's architecture are named as such."""

    other = altered(bundle.CARD, lambda card: rewrite(card, "dim = 64", "dim = 96"))

    with pytest.raises(Permanent, match="cannot be built from its card"):
        open_engine(other, "torch", streams=1)


@pytest.mark.station
@pytest.mark.parametrize("what", ["a tensor is missing", "no tensors at all"])
def test_weights_that_do_not_fit_are_an_error(altered, what):
    """Weights that lack a tensor, or are none, are refused in a sentence, under a sound seal."""
    from safetensors.torch import load_file, save_file

    def spoil(path: Path) -> None:
        state = load_file(path)
        del state["members.0.head.linear.bias"]
        save_file(state, path)
        if what == "no tensors at all":
            path.write_bytes(b"weights")

    other = altered(bundle.WEIGHTS, spoil)

    with pytest.raises(Permanent, match="cannot be built from its card") as caught:
        open_engine(other, "torch", streams=1)
    assert caught.value.cure


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
