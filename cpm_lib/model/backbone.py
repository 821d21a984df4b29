"""Backbones and the feature pyramid (Sec. 3.1, facts 2)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork, deform_conv2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cpm_lib.config import BackboneConfig
from cpm_lib.errors import UserError
from cpm_lib.model.fast_convs import LargeMapConv, adopt

STRIDES = (4, 8, 16, 32, 64)
"""Strides of P2..P6; the RoI heads use P2..P5, the proposals all five."""


FOLD_AFFINES = True
"""Whether a convolution does the frozen affine after it, instead of two more passes over its result."""


class FrozenAffine(nn.Module):
    """A frozen, folded BatchNorm: one gain and one bias per channel, never trained (facts 2.1)."""

    weight: Tensor
    bias: Tensor
    folded = False
    """Whether an `AffineConv` before this can do its work."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.folded and FOLD_AFFINES:
            return x
        gain, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return x * gain[:, None, None] + bias[:, None, None]


class AffineConv(LargeMapConv):
    """A convolution without bias that does the frozen affine behind it as well: gain in its weights, bias as its own.

    Exact but for rounding, with gradients for the weights as before. The affine stays where it is, and keeps its
    place in checkpoints.
    """

    @classmethod
    def before(cls, affine: FrozenAffine, conv: nn.Conv2d) -> AffineConv:
        folding = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
            conv.groups, bias=False, device="meta",
        )  # fmt: skip
        folding.weight = conv.weight
        # In a tuple, because as a module of its own it would be saved twice.
        folding.affine = (affine,)
        affine.folded = True
        return folding

    affine: tuple[FrozenAffine]

    def forward(self, input: Tensor) -> Tensor:
        if not FOLD_AFFINES:
            return super().forward(input)
        (affine,) = self.affine
        return self._conv_forward(input, self.weight * affine.weight[:, None, None, None], affine.bias)


class DeformableConv(nn.Module):
    """3x3 deformable convolution v1 (not modulated); offsets start at zero (facts 2.3)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride = conv.stride[0]
        self.conv_offset = nn.Conv2d(conv.in_channels, 18, 3, stride=self.stride, padding=1)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        offsets = self.conv_offset(x)
        if not x.is_cuda:  # the CPU kernel is compiled for float32 only
            with torch.autocast("cpu", enabled=False):
                return deform_conv2d(x.float(), offsets.float(), self.weight, stride=self.stride, padding=1)
        return deform_conv2d(x, offsets.to(x.dtype), self.weight.to(x.dtype), stride=self.stride, padding=1)


class SlimResNet(nn.Module):
    """One BasicBlock per layer and narrow layers, for laptops: the same strides as ResNet-50.

    Args:
        widths: channels of C2..C5.
    """

    def __init__(self, widths: tuple[int, ...], norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = norm(widths[0])
        self.relu = nn.ReLU(inplace=True)
        before = widths[0]
        for number, width in enumerate(widths, start=1):
            shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=2, bias=False), norm(width))
            block = BasicBlock(before, width, stride=2, downsample=shortcut, norm_layer=norm)
            setattr(self, f"layer{number}", nn.Sequential(block))
            before = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, widths[0], H/2, W/2]"""
        return self.relu(self.bn1(self.conv1(x)))


class Backbone(nn.Module):
    """Image to feature pyramid.

    `forward` takes normalised images [B, 3, H, W] with sides divisible by 32 and returns P2..P6,
    five maps [B, fpn_channels, H/s, W/s] with s = 4, 8, 16, 32, 64.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.body = build_body(config)
        channels = body_channels(config)
        # torchvision's pyramid is the authors': nearest-neighbour upsampling, biases, uniform
        # initialisation of variance 1 / fan_in, P6 = every second pixel of P5 (facts 2.4).
        self.fpn = FeaturePyramidNetwork(list(channels), config.fpn_channels, LastLevelMaxPool())
        adopt(self)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for level, features in zip(("p2", "p3", "p4", "p5"), self.body_maps(pixels), strict=True):
            maps[level] = features
        return list(self.fpn(maps).values())

    def body_maps(self, pixels: Tensor) -> list[Tensor]:
        """C2..C5 at strides 4, 8, 16, 32."""
        body = self.body
        if isinstance(body, SlimResNet):
            x = body.stem(pixels)
        else:
            x = body.maxpool(body.relu(body.bn1(body.conv1(pixels))))
        maps = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(body, name)(x)
            maps.append(x)
        return maps


def body_channels(config: BackboneConfig) -> tuple[int, int, int, int]:
    """Channels of C2..C5."""
    return config.slim_widths if config.name == "slim" else (256, 512, 1024, 2048)


def build_body(config: BackboneConfig) -> SlimResNet | ResNet:
    """The convolutional body with frozen parts frozen; ImageNet weights if `config.pretrained`."""
    norm: type[nn.Module] = FrozenAffine if config.norm == "frozen" else nn.BatchNorm2d
    if config.name == "slim":
        if config.pretrained or config.deformable or config.caffe:
            raise UserError("backbone.name=slim has no pretrained, deformable or caffe variant")
        body: SlimResNet | ResNet = SlimResNet(config.slim_widths, norm)
    else:
        body = getattr(torchvision.models, config.name)(norm_layer=norm)
        del body.fc, body.avgpool
        if config.pretrained:
            _load_imagenet(body, config)
        if config.caffe:
            _stride_in_first_conv(body)
        if config.deformable:
            for layer in (body.layer2, body.layer3, body.layer4):
                for block in layer:
                    block.conv2 = DeformableConv(block.conv2)
    if config.norm == "frozen":
        _fold(body)
    _freeze(body, config.frozen_layers)
    return body


def _stride_in_first_conv(body: ResNet) -> None:
    """Caffe style: the 1x1, not the 3x3, carries the stride of a block (facts 2.1). ResNeXt keeps it in the 3x3."""
    for layer in (body.layer2, body.layer3, body.layer4):
        block = layer[0]
        if isinstance(block, Bottleneck) and block.conv2.groups == 1:
            block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


def _fold(module: nn.Module) -> None:
    """Let every convolution that is followed by a frozen affine do that affine's work."""
    children = list(module.named_children())
    norms = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "0": "1"}
    for name, child in children:
        affine = getattr(module, norms.get(name, ""), None)
        if type(child) is nn.Conv2d and isinstance(affine, FrozenAffine):
            setattr(module, name, AffineConv.before(affine, child))
        else:
            _fold(child)


def _freeze(body: SlimResNet | ResNet, layers: int) -> None:
    parts = [(body.conv1, body.bn1), (body.layer1,), (body.layer2,), (body.layer3,), (body.layer4,)]
    for modules in parts[:layers]:
        for module in modules:
            assert isinstance(module, nn.Module)
            module.requires_grad_(False)


def _load_imagenet(body: ResNet, config: BackboneConfig) -> None:
    """torchvision's classification weights, BatchNorm folded where the norms are frozen."""
    try:
        weights = torchvision.models.get_model_weights(config.name)["DEFAULT"].get_state_dict(check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"ImageNet weights of {config.name} could not be had ({error}); "
            "connect to a network, fill the torch hub cache, or set backbone.pretrained=false"
        ) from error
    weights = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    body.load_state_dict(fold_batch_norms(weights) if config.norm == "frozen" else weights)


def fold_batch_norms(state: dict[str, Tensor], eps: float = 1e-5) -> dict[str, Tensor]:
    """A state dict with every BatchNorm replaced by its affine: g / sqrt(var + eps), b - g * mean / sqrt(var + eps)."""
    folded = dict(state)
    for key in state:
        if not key.endswith(".running_var"):
            continue
        norm = key.removesuffix(".running_var")
        gain = state[f"{norm}.weight"] / torch.sqrt(state[key] + eps)
        folded[f"{norm}.weight"] = gain
        folded[f"{norm}.bias"] = state[f"{norm}.bias"] - gain * state[f"{norm}.running_mean"]
        for statistic in ("running_mean", "running_var", "num_batches_tracked"):
            folded.pop(f"{norm}.{statistic}", None)
    return folded
