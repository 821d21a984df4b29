"""Gradients for the weights of 3x3 convolutions over large maps, as matrix products.

Each of the nine weights per pair of channels multiplies pixels with results that lie a fixed step away from them, so
that its gradient is one product of two matrices, pixels by channels: [O, N] with [N, C]. In a channels-last map these
matrices are there already, but for a border. On CPUs without AVX-512 oneDNN has no such kernel for channels-last maps
and takes three to five times as long.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn import grad

ENABLED = True
"""False: always torch's gradient."""

MIN_PIXELS = 512
"""Of one map of results; on smaller ones borders and calls cost more than the products save."""

MIN_CHANNELS = 64
"""With fewer channels the products are too narrow."""

_BLOCK = 8192
"""Results at a time: their pixels stay in the cache for all nine products."""


class LargeMapConv(nn.Conv2d):
    """A convolution that computes its weights' gradient as matrix products where that is faster."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if ENABLED and self.suits(input, weight):
            return cast(Tensor, _FastBackward.apply(input, weight, bias, self.stride[0]))
        return super()._conv_forward(input, weight, bias)

    def suits(self, input: Tensor, weight: Tensor) -> bool:
        plain = self.kernel_size == (3, 3) and self.padding == (1, 1) and self.dilation == (1, 1)
        plain = plain and self.groups == 1 and self.stride in ((1, 1), (2, 2)) and input.dim() == 4
        wide = min(self.in_channels, self.out_channels) >= MIN_CHANNELS
        there = input.device.type == "cpu" and input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        learns = torch.is_grad_enabled() and weight.requires_grad
        if not (plain and wide and there and learns) or torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
            return False
        large = input.shape[2] * input.shape[3] >= MIN_PIXELS * self.stride[0] ** 2
        return large and input.is_contiguous(memory_format=torch.channels_last)


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


class _FastBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride = stride
        return F.conv2d(input, weight, bias, stride, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        input, weight = ctx.saved_tensors
        stride = ctx.stride
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_input = grad.conv2d_input(input.shape, weight, gradient, stride, padding=1)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(input, gradient, stride)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None


def weight_gradient(input: Tensor, gradient: Tensor, stride: int = 1) -> Tensor:
    """Gradient [O, C, 3, 3] of the filters of a convolution with padding 1.

    Args:
        input: [B, C, H, W].
        gradient: of the results, [B, O, ceil(H / stride), ceil(W / stride)].
    """
    pixels, results = input.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    batch, height, width, channels = results.shape
    total = input.new_zeros(3, 3, channels, input.shape[1])
    images, rows = max(1, _BLOCK // (height * width)), max(1, _BLOCK // width)
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            block = results[first : first + images, top : top + rows]
            _add_products(total, pixels[first : first + images], block, top * stride - 1, stride)
    return total.permute(2, 3, 0, 1)


def _add_products(total: Tensor, pixels: Tensor, block: Tensor, above: int, stride: int) -> None:
    """Add what a block of rows contributes; `above`: the row of `pixels` that its first weight meets, -1 at the top."""
    _, height, width, channels = pixels.shape
    # A border of further results, all zero, so that a step to the next row is the same number of pixels everywhere.
    border = 2 // stride
    padded = F.pad(block, (0, 0, 0, border, 0, border))
    results = padded.reshape(-1, padded.shape[3])
    rows, columns = padded.shape[1] * stride, padded.shape[2] * stride
    low, high = max(above, 0), min(above + rows, height)
    around = (0, 0, 1, columns - width - 1, low - above, above + rows - high)
    pixels = F.pad(pixels[:, low:high], around)
    for row in range(stride):
        for column in range(stride):
            # The pixels that meet the results without a step: with a stride of 2 every second row and column.
            met = pixels[:, row::stride, column::stride].reshape(-1, channels)
            for down in range(row, 3, stride):
                for right in range(column, 3, stride):
                    step = (down - row) // stride * padded.shape[2] + (right - column) // stride
                    count = len(results) - step
                    total[down, right].addmm_(results[:count].t(), met[step:])
