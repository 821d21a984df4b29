"""Real backbones at 128 px: shapes, gradients, strides, deformable convolutions, and weights from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum
from torchvision.models.resnet import Bottleneck

from cpm_lib.config import BackboneConfig
from cpm_lib.errors import UserError
from cpm_lib.model.backbone import STRIDES, Backbone, DeformableConv, FrozenAffine, build_body, fold_batch_norms

SIDE = 128
KINDS: dict[str, dict[str, Any]] = {
    "resnet50": {"name": "resnet50"},
    "resnet50-caffe": {"name": "resnet50", "caffe": True},
    "resnet101": {"name": "resnet101", "caffe": True},
    "resnext101": {"name": "resnext101_64x4d"},
    "resnext101-dcn": {"name": "resnext101_64x4d", "caffe": True, "deformable": True},
}
FROZEN = ("body.conv1.", "body.layer1.")


def blocks(body: Any) -> Iterator[tuple[int, int, Bottleneck]]:
    for layer in (1, 2, 3, 4):
        for number, block in enumerate(getattr(body, f"layer{layer}")):
            yield layer, number, block


def scramble(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that no initialisation would give: norms with statistics, gains and biases of their own."""
    generator = torch.Generator().manual_seed(0)

    def value(key: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dim() > 1:
            return tensor
        noise = torch.rand(tensor.shape, generator=generator)
        return 0.5 + noise if key.endswith(("running_var", "weight")) else 0.2 * noise - 0.1

    return {key: value(key, tensor) for key, tensor in state.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_pyramid_forwards_and_backwards(kind: str) -> None:
    torch.manual_seed(0)
    config = BackboneConfig(**KINDS[kind])
    backbone = Backbone(config).train()
    images = 2 if config.name == "resnet50" else 1
    maps = backbone(torch.randn(images, 3, SIDE, SIDE))
    assert [tuple(level.shape) for level in maps] == [(images, 256, SIDE // s, SIDE // s) for s in STRIDES]
    assert torch.equal(maps[4], maps[3][:, :, ::2, ::2])
    sum(level.square().mean() for level in maps).backward()
    for name, parameter in backbone.named_parameters():
        frozen = name.startswith(FROZEN)
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
        assert frozen or bool(parameter.grad.isfinite().all()), name
        # Every weight matters: none is outside the way from pixels to pyramid.
        assert frozen or bool(parameter.grad.any()), name
    # Frozen norms are no parameters at all: nothing can train them.
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
    assert sum(isinstance(module, FrozenAffine) for module in backbone.modules()) == (
        53 if config.name == "resnet50" else 104
    )


@pytest.mark.parametrize("kind", KINDS)
def test_layout(kind: str) -> None:
    """Blocks, widths, the place of the stride and of the deformable convolutions (facts 2.1 to 2.3)."""
    config = BackboneConfig(**KINDS[kind])
    with torch.device("meta"):
        body = build_body(config)
    assert [sum(1 for place in blocks(body) if place[0] == layer) for layer in (1, 2, 3, 4)] == (
        [3, 4, 6, 3] if config.name == "resnet50" else [3, 4, 23, 3]
    )
    grouped = config.name.startswith("resnext")
    # A ResNeXt keeps the stride in its 3x3, as the authors' does.
    in_first = config.caffe and not grouped
    for layer, number, block in blocks(body):
        width = 64 * 2 ** (layer - 1) * (4 if grouped else 1)
        assert block.conv1.weight.shape[0] == width
        assert tuple(block.conv2.weight.shape) == (width, width // 64 if grouped else width, 3, 3)
        assert block.conv3.weight.shape[0] == 256 * 2 ** (layer - 1)
        stride = 2 if number == 0 and layer > 1 else 1
        first = block.conv1.stride[0]
        second = block.conv2.stride if isinstance(block.conv2, DeformableConv) else block.conv2.stride[0]
        assert (first, second) == ((stride, 1) if in_first else (1, stride))
        assert isinstance(block.conv2, DeformableConv) == (config.deformable and layer > 1)
        assert (block.downsample is not None) == (number == 0)


def test_caffe_style_reads_every_second_pixel() -> None:
    """With the stride in a 1x1 the block never sees odd pixels; with the stride in the 3x3 it does."""
    x = torch.randn(1, 256, 8, 8)
    changed = x.clone()
    changed[:, :, 1::2] += 1
    for caffe in (True, False):
        block = build_body(BackboneConfig(caffe=caffe)).layer2[0]
        with torch.no_grad():
            assert torch.equal(block(x), block(changed)) == caffe


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (4, 1), (4, 2)])
def test_deformable_with_zero_offsets_is_the_convolution(groups: int, stride: int) -> None:
    conv = nn.Conv2d(16, 16, 3, stride=stride, padding=1, groups=groups, bias=False)
    deformable = DeformableConv(conv)
    x = torch.randn(2, 16, 9, 12)
    torch.testing.assert_close(deformable(x), conv(x))
    # Offsets (dy, dx) of (0, 1) at every tap look one pixel to the right: the layout of facts 2.3.
    with torch.no_grad():
        deformable.conv_offset.bias[1::2] = 1.0
    shifted = nn.functional.pad(x, (0, 1))[..., 1:]
    inside = (slice(None), slice(None), slice(None), slice(1, -2))
    torch.testing.assert_close(deformable(x)[inside], conv(shifted)[inside])


def test_frozen_affine_is_a_folded_batch_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    norm.load_state_dict(scramble(norm.state_dict()))
    affine = FrozenAffine(6)
    folded = fold_batch_norms({f"a.{key}": value for key, value in norm.state_dict().items()})
    assert sorted(folded) == ["a.bias", "a.weight"]
    affine.load_state_dict({key.removeprefix("a."): value for key, value in folded.items()})
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(affine(x), norm.eval()(x))
    assert affine.train()(x).equal(affine.eval()(x)) and not list(affine.parameters())
    hand = (norm.weight / (norm.running_var + 1e-5).sqrt())[0] * (x[0, 0] - norm.running_mean[0]) + norm.bias[0]
    torch.testing.assert_close(affine(x)[0, 0], hand)


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_imagenet_weights_by_name(norm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body computes what torchvision's classifier computes before its pooling, with its norms in eval mode."""
    torch.manual_seed(0)
    classifier = torchvision.models.resnet50().eval()
    classifier.load_state_dict(scramble(classifier.state_dict()))
    asked = []

    def stored(self: WeightsEnum, **options: Any) -> dict[str, Tensor]:
        asked.append((str(self), options))
        return dict(classifier.state_dict())

    monkeypatch.setattr(WeightsEnum, "get_state_dict", stored)
    backbone = Backbone(BackboneConfig(pretrained=True, norm=norm)).eval()
    newest = torchvision.models.get_model_weights("resnet50")["DEFAULT"]
    assert asked == [(str(newest), {"check_hash": True})]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.maxpool(classifier.relu(classifier.bn1(classifier.conv1(x))))
        for maps, layer in zip(backbone.body_maps(x), ("layer1", "layer2", "layer3", "layer4"), strict=True):
            expected = getattr(classifier, layer)(expected)
            scale = float(expected.abs().max())
            torch.testing.assert_close(maps / scale, expected / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext101_64x4d"])
@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("invalid hash value")], ids=["network", "hash"])
def test_imagenet_weights_that_cannot_be_had(name: Any, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: WeightsEnum, **options: Any) -> None:
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with torch.device("meta"), pytest.raises(UserError) as raised:
        build_body(BackboneConfig(name=name, pretrained=True))
    text = str(raised.value)
    assert name in text and str(error) in text and "backbone.pretrained=false" in text and "\n" not in text


@pytest.mark.parametrize("option", ["pretrained", "deformable", "caffe"])
def test_slim_has_no_variants(option: str) -> None:
    with pytest.raises(UserError, match="slim"):
        build_body(BackboneConfig(name="slim", **{option: True}))  # type: ignore[arg-type]
