"""TFKT V2 against an oracle: torchvision's own two networks, put together as its authors do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.iqa.wiring import every_kan_layer_moves_u

pytestmark = pytest.mark.station

CLOSE = 1e-4
KEY_BIASES = 12_032


@pytest.fixture(scope="module")
def hu(torch):
    """Eight pictures, (8, 128, 128): blobs under noise of 4 to 400 HU, fine and coarse."""
    rng = torch.Generator().manual_seed(11)

    def noise(size: int):
        small = torch.randn(8, 1, 128 // size, 128 // size, generator=rng)
        return torch.nn.functional.interpolate(small, size=(128, 128), mode="bilinear")[:, 0]

    fine = torch.logspace(0.6, 2.6, 8)[:, None, None]
    coarse = torch.linspace(150, 10, 8)[:, None, None]
    return 300 * noise(32) - 200 + fine * noise(1) + coarse * noise(8)


@pytest.fixture(scope="module")
def oracle(torch, torchvision, hu):
    """The released graph from torchvision's parts, random weights, statistics from `hu`.

    With weights as they are drawn every input would give the same output, whatever the graph does.
    """
    from torch import nn
    from torchvision.models import efficientnet_v2_l, swin_v2_b

    class Oracle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.effnetv2l = efficientnet_v2_l(weights=None)
            self.effnetv2l.features[0][0] = nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False)
            self.effnetv2l.classifier[1] = nn.Linear(1280, 4096)
            self.swinv2b = swin_v2_b(weights=None)
            self.swinv2b.features[0][0] = nn.Conv2d(1, 128, 4, stride=4)
            self.swinv2b.head = nn.Identity()  # until there is something to look at

        def picture(self, hu):
            return self.effnetv2l(((hu[:, None] + 1000) / 1400).clamp(0, 1))

        def forward(self, hu):
            return self.swinv2b(self.picture(hu).reshape(-1, 1, 64, 64)).squeeze(1)

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(7)
        oracle = Oracle().eval()
        for name, parameter in oracle.named_parameters():
            if name.endswith("logit_scale"):
                parameter.uniform_(0, 5)  # clamped at ln 100
            elif name.endswith("cpb_mlp.2.weight"):
                parameter.normal_(0, 0.2)
            elif name.endswith("bias") or "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        norms = [m for m in oracle.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the plain mean of what it sees
            norm.train()
        oracle.picture(hu)
        for norm in norms:
            norm.eval()
        # Bridge and head look at what tells the inputs apart, not at what they share.
        bridge = oracle.effnetv2l.classifier[1]
        bridge.weight.mul_(4)
        pictures = oracle.picture(hu)
        bridge.bias.sub_(pictures.mean(dim=0))
        pictures = (pictures - pictures.mean(dim=0)).reshape(-1, 1, 64, 64)
        seen = oracle.swinv2b(pictures)  # (8, 1024)
        oracle.swinv2b.head = nn.Linear(1024, 1)
        oracle.swinv2b.head.weight.copy_(nn.functional.normalize(seen[-1:] - seen[:1]))
    return oracle


@pytest.fixture(scope="module")
def network(torch, oracle):
    """Ours with the oracle's weights; each tensor that the converter forgets stays NaN."""
    from tfkt_node.iqa.network import RELEASED, build
    from tfkt_node.iqa.released import load_released

    network = build(RELEASED)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    load_released(network, oracle.state_dict())
    return network


@pytest.fixture(scope="module")
def trace(torch):
    """Run a network and return what comes out of its parts, by name."""

    def trace(network, hu) -> dict:
        if hasattr(network, "swinv2b"):
            cnn, swin = network.effnetv2l, network.swinv2b
            parts = {"features": cnn.features, "bridge": cnn.classifier}
            parts |= {f"stage {n + 1}": swin.features[2 * n + 1] for n in range(4)}
        else:
            parts = {"features": network.features.bn2, "bridge": network.members[0].bridge.linear}
            parts |= {
                f"stage {n + 1}": stage for n, stage in enumerate(network.members[0].swin.stages)
            }
        seen = {}

        def keep(name: str) -> Callable:
            return lambda _module, _inputs, output: seen.__setitem__(name, output)

        hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
        with torch.inference_mode():
            seen["u"] = network(hu)
        for hook in hooks:
            hook.remove()
        return seen

    return trace


@pytest.fixture(scope="module")
def expected(trace, oracle, hu):
    return trace(oracle, hu)


def differences(seen: dict, expected: dict) -> dict[str, float]:
    assert seen.keys() == expected.keys()
    for name, output in seen.items():
        assert output.shape == expected[name].shape, name
    return {name: float((seen[name] - expected[name]).abs().max()) for name in seen}


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_counts_in_both_namings(oracle, network):
    """209,383,449 parameters as released; ours are fewer by the key biases, which do nothing."""
    assert parameters(oracle) == 209_383_449
    assert parameters(network) == 209_371_417
    assert parameters(oracle) - parameters(network) == KEY_BIASES
    assert len(oracle.state_dict()) == 1997


def test_outputs_tell_inputs_apart(expected):
    """The oracle is worth comparing with: its outputs spread, and so does each part's."""
    assert expected["u"].max() - expected["u"].min() > 0.1
    for name, seen in expected.items():
        assert seen.std(dim=0).max() > 0.05, name


def test_same_as_torchvision_at_every_part(trace, network, hu, expected):
    """Features, bridge, each stage of the Swin and the output are those of the oracle."""
    for name, difference in differences(trace(network, hu), expected).items():
        assert difference < CLOSE, name


def test_same_as_torchvision_on_a_whole_slice(torch, trace, oracle, network):
    """The same at 512 x 512, where values beyond the window occur."""
    hu = 700 * torch.randn(1, 512, 512, generator=torch.Generator().manual_seed(12))
    hu[:, :40] = -3024
    hu[:, 300:310, 300:310] = 3071

    seen = trace(network, hu)

    assert max(differences(seen, trace(oracle, hu)).values()) < CLOSE
    assert seen["features"].shape == (1, 1280, 16, 16)


def wrong_eps(network) -> None:
    """timm's own eps."""
    for module in network.features.modules():
        if hasattr(module, "running_mean"):
            module.eps = 1e-5


def shrunk_windows(network) -> None:
    """What timm does with maps smaller than a window, unless told otherwise."""
    for block in network.members[0].swin.stages[2].blocks:
        block.window_size, block.window_area = (4, 4), 16
        block.attn.set_window_size((4, 4))


def shifted_where_covered(network) -> None:
    """What timm does when told to keep the windows."""
    block = network.members[0].swin.stages[1].blocks[1]
    block.shift_size = (4, 4)
    block.attn_mask = block.get_attn_mask()


def never_shifted(network) -> None:
    block = network.members[0].swin.stages[0].blocks[1]
    block.shift_size, block.attn_mask = (0, 0), None


@pytest.mark.parametrize(
    ("plant", "part"),
    [
        (wrong_eps, "features"),
        (shrunk_windows, "stage 3"),
        (shifted_where_covered, "stage 2"),
        (never_shifted, "stage 1"),
    ],
)
def test_planted_fault_is_seen(trace, network, hu, expected, plant, part):
    """The comparison has teeth: a small error shows in the part it is in and in the output."""
    faulty = copy.deepcopy(network)
    plant(faulty)

    found = differences(trace(faulty, hu[:1]), {name: t[:1] for name, t in expected.items()})

    parts = list(found)
    assert all(found[name] < CLOSE for name in parts[: parts.index(part)])
    assert found[part] > 10 * CLOSE
    assert found["u"] > CLOSE


def test_readings_of_the_released_graph(torch, network, hu, expected):
    """Behind a global bridge no place has a quality of its own; the features' mean comes along."""
    with torch.inference_mode():
        u, local, pooled = network.readings(hu[:1])

    assert abs(u - expected["u"][0]) < CLOSE
    assert local.shape == (1, 8, 8)
    assert (local == u).all()
    assert torch.allclose(pooled, expected["features"][:1].mean(dim=(2, 3)), atol=CLOSE)


# --- Swin-KAT: the gated branch


@pytest.fixture(scope="module")
def kat(oracle):
    """tfkt_v2 with the KAN beside the MLP and the released weights in the rest."""
    from tfkt_node.iqa.network import RELEASED, build
    from tfkt_node.iqa.released import load_released

    network = build(replace(RELEASED, feed_forward="kan", ratio=1 / 8))
    load_released(network, oracle.state_dict())
    return network


@pytest.fixture
def open_gates(torch, kat):
    """The same network with all gates open, for one test."""
    gates = [p for name, p in kat.named_parameters() if name.endswith(".gate")]
    with torch.no_grad():
        for gate in gates:
            gate.fill_(0.5)
    yield kat
    with torch.no_grad():
        for gate in gates:
            gate.zero_()


def test_shut_gate_is_the_released_graph(torch, network, kat, hu):
    """While the gates are shut the KAN changes no bit; the blocks hold 15.8 M parameters more."""
    with torch.inference_mode():
        assert torch.equal(kat(hu[:2]), network(hu[:2]))

    assert parameters(kat) - parameters(network) == 15_731_160


def test_every_kan_layer_beside_an_mlp_is_wired(open_gates, kan, expected):
    """With the gates open each of 48 layers takes part: moving its curves moves u."""
    assert len(kan.kan_layers(open_gates)) == 2 * (2 + 2 + 18 + 2)
    every_kan_layer_moves_u(open_gates, expected["features"][:1].clone())


def test_gate_learns_before_its_kan(torch, kat, expected):
    """A shut gate gets a gradient, and so opens; the KAN behind it gets none until then."""
    kat.quality_from_maps(expected["features"][:1].clone()).sum().backward()

    for name, parameter in kat.members[0].swin.named_parameters():
        if name.endswith(".gate"):
            assert parameter.grad != 0, name
        elif ".kan." in name:
            assert not parameter.grad.any(), name
    kat.zero_grad()


# --- The converter


@pytest.fixture
def state(oracle):
    """The checkpoint, as a dict to change."""
    return dict(oracle.state_dict())


def test_converter_sets_every_tensor(torch, network):
    """Nothing is left as it was built: all 1,925 tensors of ours come from the checkpoint."""
    assert not any(tensor.isnan().any() for tensor in network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("effnetv2l.features.4.9.block.2.fc1.bias"),
            r"features\.4\.9\.block\.2\.fc1\.bias is missing$",
        ),
        (
            lambda s: [s.pop("swinv2b.norm.weight"), s.pop("swinv2b.norm.bias")],
            r"swinv2b\.norm\.weight is missing, and 1 more",
        ),
        (
            lambda s: s.pop("swinv2b.features.1.0.attn.relative_coords_table"),
            "relative_coords_table is missing",
        ),
        (
            lambda s: s.update({"kan.grid": s["swinv2b.norm.bias"]}),
            r"kan\.grid is not part of tfkt_v2",
        ),
        (
            lambda s: s.update({"swinv2b.head.bias": s["swinv2b.head.weight"]}),
            r"swinv2b\.head\.bias must have the shape \(1,\): got \(1, 1024\)",
        ),
        (
            lambda s: s.update(
                {
                    "swinv2b.features.1.1.attn.qkv.bias": s[
                        "swinv2b.features.1.1.attn.qkv.bias"
                    ].repeat(2)
                }
            ),
            r"qkv\.bias must have the shape \(384,\): got \(768,\)",
        ),
        (
            lambda s: s.update(
                {
                    "swinv2b.features.3.0.attn.relative_coords_table": s[
                        "swinv2b.features.3.0.attn.relative_coords_table"
                    ]
                    * 0.9
                }
            ),
            "windows of another size",
        ),
    ],
)
def test_checkpoint_that_does_not_fit(torch, network, state, change, message):
    """One tensor too few, too many or of another shape is named, and nothing is set."""
    from tfkt_node.iqa.released import load_released

    change(state)
    state["effnetv2l.features.0.0.weight"] = torch.zeros(32, 1, 3, 3)

    with pytest.raises(ValueError, match=message):
        load_released(network, state)

    assert network.features.conv_stem.weight.abs().min() > 0


def test_other_family_is_refused(torch, state):
    """Released weights are not squeezed into another network."""
    from tfkt_node.iqa.network import NetworkConfig, build
    from tfkt_node.iqa.released import load_released

    with pytest.raises(ValueError, match="tfkt_v2_lite"):
        load_released(build(NetworkConfig()), state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoint_from_a_file(torch, tmp_path, prefix):
    """Names come out bare, also from a model saved in parallel; `module.` inside a name stays."""
    from tfkt_node.iqa.released import read_checkpoint

    names = ("swinv2b.norm.bias", "swinv2b.module.x")
    torch.save({prefix + name: torch.ones(2) for name in names}, tmp_path / "checkpoint")

    state = read_checkpoint(tmp_path / "checkpoint")

    assert tuple(state) == names
    assert torch.equal(state["swinv2b.norm.bias"], torch.ones(2))


def test_file_that_is_no_checkpoint(torch, tmp_path):
    """Code, values that are no tensors, and half a file are refused, each with the file's name."""
    from tfkt_node.iqa.released import read_checkpoint

    torch.save({"model": Run()}, tmp_path / "code")
    torch.save({"epoch": 3}, tmp_path / "number")
    torch.save({"w": torch.ones(9999)}, tmp_path / "whole")
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:9999])
    (tmp_path / "empty").touch()

    for name in ("code", "number", "half", "empty"):
        with pytest.raises(ValueError, match=name):
            read_checkpoint(tmp_path / name)
    assert not Run.ran


@pytest.mark.train
def test_checkpoint_becomes_a_bundle(torch, oracle, tmp_path, capsys):
    """`tfkt-node convert`: the graph gives the checkpoint's quality and promises nothing of it."""
    from tfkt_node.cli.app import run
    from tfkt_node.iqa.bundle import load
    from tfkt_node.iqa.engine import open_engine
    from tfkt_node.training.bundles.export import golden_slices

    # Random weights blow up what their statistics never saw, down to the last digit of a float.
    golden, saved = torch.from_numpy(golden_slices()), copy.deepcopy(oracle)
    with torch.inference_mode():
        norms = [m for m in saved.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        saved.picture(golden)
        for norm in norms:
            norm.eval()
        expected = saved(golden[:1]).numpy()
    state = {f"module.{name}": tensor for name, tensor in saved.state_dict().items()}
    torch.save(state, tmp_path / "checkpoint")

    assert run(["convert", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "tfkt-v2")]) == 0

    made = load(tmp_path / "tfkt-v2")
    assert f"Bundle tfkt-v2 {made.version} written" in capsys.readouterr().out
    assert made.calibration.series == (4, 4)
    found = open_engine(made, "openvino", streams=1).read(golden[:1].numpy())
    assert found.u == pytest.approx(expected, abs=1e-3)
    assert not made.feature_distance().is_outside(found.pooled)[0]


class Run:
    """Runs when it is unpickled carelessly."""

    ran = False

    def __setstate__(self, state: object) -> None:
        Run.ran = True

    def __getstate__(self) -> dict:
        return {"x": 1}
