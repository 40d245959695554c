from __future__ import annotations

import tomllib

import numpy as np
import pytest

from tfkt_node.iqa.feature_distance import fit

pytestmark = pytest.mark.station


@pytest.fixture(scope="module")
def export(require_module):
    """tfkt_node.training.bundles.export, imported late: it needs torch."""
    require_module("torch")
    from tfkt_node.training.bundles import export

    return export


@pytest.fixture(scope="module")
def written(export, tmp_path_factory):
    """The network of an ablation (MLP), and the bundle written of it."""
    from tfkt_node.iqa.network import NetworkConfig, build
    from tfkt_node.iqa.uncertainty import Calibration

    network = build(NetworkConfig(feed_forward="mlp", ratio=2.0))
    description = export.Description(
        summary="for a test",
        name="written",
        version="3.1",
        scope={"kernels": ["soft", 'odd\n"name"'], "axial_only": True},
        calibration=Calibration(1.0, 0.25, 0.5, 0.625, 0.9),
        data={"patients": 65, "sources": {"LIDC-IDRI": 10}},
        figures=(
            {"name": "SROCC", "value": 0.96, "command": "tfkt-node evaluate"},
            {"name": "MAE", "value": 0.25, "command": "tfkt-node evaluate"},
        ),
        readme="# Größe 4\n",
        recipe="[fit]\nepochs = 8\n",
    )
    folder = tmp_path_factory.mktemp("bundles") / "new" / "written"
    vectors = np.random.default_rng(5).normal(size=(40, network.features.channels))
    distance = fit(
        vectors.astype(np.float32), [f"P{number % 10}" for number in range(40)], range(40)
    )
    golden = export.golden_slices()
    return network, export.write_bundle(folder, network, description, golden, distance)


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_written_network_is_the_trained_one(written, kind):
    """A network with an MLP exports, loads, passes its golden slices and gives its quality."""
    import torch

    from tfkt_node.iqa.engine import open_engine

    network, bundle = written
    hu = np.random.default_rng(4).normal(0, 200, (3, 512, 512)).astype(np.float32)

    quality = open_engine(bundle, kind, streams=1).quality(hu)

    with torch.inference_mode():
        expected = network(torch.from_numpy(hu)).numpy()
    assert np.abs(quality - expected).max() < 1e-3


def test_card_says_what_was_described(written):
    """Tables, arrays of tables and odd strings come back from the card as they were given."""
    _, bundle = written
    card = bundle.card

    assert (bundle.name, bundle.version) == ("written", "3.1")
    assert card["scope"] == {"kernels": ["soft", 'odd\n"name"'], "axial_only": True}
    assert card["data"] == {"patients": 65, "sources": {"LIDC-IDRI": 10}}
    assert [figure["name"] for figure in card["figures"]] == ["SROCC", "MAE"]
    assert card["input"]["window_hu"] == [-1000.0, 400.0]
    assert bundle.calibration.above == 0.625
    assert tomllib.loads((bundle.folder / "recipe.toml").read_text())["fit"]["epochs"] == 8
    assert (bundle.folder / "README.md").read_text(encoding="utf-8") == "# Größe 4\n"


def test_bundle_holds_no_path_of_this_machine(written):
    """What is shipped does not tell where it was made."""
    _, bundle = written

    for path in bundle.folder.iterdir():
        assert str(bundle.folder.parent).encode() not in path.read_bytes(), path.name


def test_graph_is_in_single_precision(written):
    """Half-precision weights would change u in the third digit: none is saved."""
    _, bundle = written

    assert 'element_type="f16"' not in (bundle.folder / "model.xml").read_text()


def test_graph_names_what_it_gives(written):
    """Any tool that opens the graph sees quality, local quality and pooled maps, in this order."""
    from tfkt_node.iqa.engine import import_openvino

    network, bundle = written

    outputs = import_openvino().Core().read_model(bundle.folder / "model.xml").outputs

    assert [output.any_name for output in outputs] == ["u", "local", "pooled"]
    assert tuple(outputs[2].shape) == (1, network.features.channels)


def test_golden_slices_are_the_same_each_time(export):
    """Anyone can make the golden inputs again: whole HU, body in air, three levels of noise."""
    hu = export.golden_slices()

    assert np.array_equal(hu, export.golden_slices())
    assert np.array_equal(hu, np.round(hu))
    assert np.allclose([s[240:272, 240:272].std() for s in hu], [8, 30, 100], rtol=0.1)
    assert (hu[:, :50, :50] == -1000).all()
