"""Convolutions of torch that take a faster way on the CPU where there is one."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn import grad

from cpm_lib.model import strided_gradient, winograd

SMALL_MAPS_CHANNELS, SMALL_MAPS_TILES = 256, 96
"""With fewer of either Winograd's transformations cost more than the products they save."""

LARGE_MAPS_CHANNELS, LARGE_MAPS_PIXELS = 128, 512
"""With fewer channels, or on smaller maps of results, torch's gradients are as fast."""


class SmallMapConv(nn.Conv2d):
    """For many small maps in any order of memory: Winograd's way at test, and in training backward only."""

    def forward(self, input: Tensor) -> Tensor:
        if not (winograd.ENABLED and self.suits(input)):
            return super().forward(input)
        if torch.is_grad_enabled():
            return cast(Tensor, _FastBackward.apply(input, self.weight, self.bias, 1))
        return winograd.winograd(input, self.weight, self.bias)

    def suits(self, input: Tensor) -> bool:
        wide = min(self.in_channels, self.out_channels) >= SMALL_MAPS_CHANNELS
        usual = _usual(self, input) and self.stride == (1, 1)
        return usual and wide and winograd.count_tiles(input) >= SMALL_MAPS_TILES


class LargeMapConv(nn.Conv2d):
    """For large channels-last maps on CPUs without AVX-512: faster gradients, the same results."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        enabled = winograd.ENABLED if self.stride == (1, 1) else strided_gradient.ENABLED
        if enabled and self.suits(input, weight):
            return cast(Tensor, _FastBackward.apply(input, weight, bias, self.stride[0]))
        return super()._conv_forward(input, weight, bias)

    def suits(self, input: Tensor, weight: Tensor) -> bool:
        if not (_usual(self, input) and torch.is_grad_enabled() and weight.requires_grad):
            return False
        if torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
            return False
        wide = min(self.in_channels, self.out_channels) >= LARGE_MAPS_CHANNELS
        pixels = input.shape[2] * input.shape[3] / self.stride[0] ** 2
        there = input.is_contiguous(memory_format=torch.channels_last)
        return wide and there and pixels >= LARGE_MAPS_PIXELS


def adopt(module: nn.Module) -> None:
    """Make every plain 3x3 convolution inside of `module` a `LargeMapConv` with its weights, under its name."""
    for name, child in module.named_children():
        if type(child) is nn.Conv2d and child.kernel_size == (3, 3):
            large = LargeMapConv(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding, child.dilation,  # type: ignore[arg-type]
                child.groups, bias=child.bias is not None, device="meta",
            )  # fmt: skip
            large.weight, large.bias = child.weight, child.bias
            setattr(module, name, large)
        else:
            adopt(child)


def _usual(conv: nn.Conv2d, input: Tensor) -> bool:
    """Whether a convolution is 3x3 with padding 1 and stride 1 or 2, and its input a batch in float32 on the CPU."""
    plain = conv.kernel_size == (3, 3) and conv.padding == conv.dilation == (1, 1) and conv.groups == 1
    plain = plain and conv.stride in ((1, 1), (2, 2)) and input.dim() == 4 and len(input) > 0
    there = input.device.type == "cpu" and input.dtype == torch.float32
    return plain and there and not torch.is_autocast_enabled("cpu")


class _FastBackward(torch.autograd.Function):
    """Forward it is torch's convolution: rounding decides whether the ReLU behind lets a gradient near zero through."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride = stride
        return F.conv2d(input, weight, bias, stride, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        input, weight = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0] and ctx.stride == 1:
            # The gradient goes the way of the results backwards: the same convolution with the filter turned round.
            of_input = winograd.winograd(gradient, weight.transpose(0, 1).flip(2, 3), None)
        elif ctx.needs_input_grad[0]:
            of_input = grad.conv2d_input(input.shape, weight, gradient, ctx.stride, padding=1)
        if ctx.needs_input_grad[1]:
            gradient_of = (
                winograd.winograd_weight_gradient if ctx.stride == 1 else strided_gradient.strided_weight_gradient
            )
            of_weight = gradient_of(input, gradient)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None
