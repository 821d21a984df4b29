"""3x3 convolutions of many small maps, and their gradients, with a third of the multiplications (Winograd).

F(4x4, 3x3): a tile of 4x4 results needs 36 products per pair of channels instead of 144. Tiles and filters are
transformed by fixed matrices, multiplied element by element (here: 36 matrix products over the channels), and
transformed back (Lavin and Gray, 2016).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ENABLED = True
"""False: always torch's convolution."""

MIN_CHANNELS = 256
"""With fewer channels the transformations cost more than the products they save."""

MIN_TILES = 96
"""Of 4x4 results, in all maps together: with fewer the transformation of the filters costs more than it saves."""

_TILE, _WINDOW = 4, 6

_INPUT = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ]
)
_FILTER = torch.tensor(
    [
        [1 / 4, 0.0, 0.0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0.0, 0.0, 1.0],
    ]
)
_OUTPUT = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ]
)


class SmallMapConv(nn.Conv2d):
    """A convolution that takes Winograd's way where that is faster: at test, and in training backward only."""

    def forward(self, input: Tensor) -> Tensor:
        if not (ENABLED and self.suits(input)):
            return super().forward(input)
        if torch.is_grad_enabled():
            return cast(Tensor, _FastBackward.apply(input, self.weight, self.bias))
        return winograd(input, self.weight, self.bias)

    def suits(self, input: Tensor) -> bool:
        plain = self.kernel_size == (3, 3) and self.padding == (1, 1)
        plain = plain and self.stride == self.dilation == (1, 1) and self.groups == 1
        wide = min(self.in_channels, self.out_channels) >= MIN_CHANNELS
        there = input.device.type == "cpu" and input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        many = len(input) * math.ceil(input.shape[2] / _TILE) * math.ceil(input.shape[3] / _TILE) >= MIN_TILES
        return plain and wide and there and many


class _FastBackward(torch.autograd.Function):
    """Forward it is torch's convolution: rounding decides whether the ReLU behind lets a gradient near zero through."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return F.conv2d(input, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            # The gradient goes the way of the results backwards: the same convolution with the filter turned round.
            of_input = winograd(gradient, weight.transpose(0, 1).flip(2, 3), None)
        if ctx.needs_input_grad[1]:
            of_weight = winograd_weight_gradient(input, gradient)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias


def winograd(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d` with padding 1 of maps [R, C, H, W] with filters [O, C, 3, 3]; [R, O, H, W], channels-last.

    Equal up to rounding: about four times that of the direct form, 7e-6 of the largest value.
    """
    rois, channels, height, width = input.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    filters = torch.kron(_FILTER, _FILTER) @ weight.reshape(-1, 9).t()
    products = torch.bmm(_tiles(input), filters.view(_WINDOW * _WINDOW, -1, channels).transpose(1, 2))
    results = torch.kron(_OUTPUT, _OUTPUT) @ products.view(_WINDOW * _WINDOW, -1)
    results = results.view(_TILE, _TILE, rois, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    results = results.reshape(rois, rows * _TILE, columns * _TILE, -1)[:, :height, :width]
    results = results + bias if bias is not None else results.contiguous()
    return results.permute(0, 3, 1, 2)


def winograd_weight_gradient(input: Tensor, gradient: Tensor) -> Tensor:
    """Gradient [O, C, 3, 3] of the filters, for that of the results, [R, O, H, W]."""
    rois, channels, height, width = gradient.shape
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, columns * _TILE - width, 0, rows * _TILE - height))
    blocks = padded.view(rois, rows, _TILE, columns, _TILE, channels).permute(2, 4, 0, 1, 3, 5)
    of_products = torch.kron(_OUTPUT, _OUTPUT).t() @ blocks.reshape(_TILE * _TILE, -1)
    of_filters = torch.bmm(of_products.view(_WINDOW * _WINDOW, -1, channels).transpose(1, 2), _tiles(input))
    of_weight = torch.kron(_FILTER, _FILTER).t() @ of_filters.view(_WINDOW * _WINDOW, -1)
    return of_weight.t().reshape(channels, -1, 3, 3)


def _tiles(input: Tensor) -> Tensor:
    """Transformed windows of the maps [R, C, H, W]: [36, R * rows * columns, C]."""
    channels, height, width = input.shape[1:]
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = F.pad(input, (1, columns * _TILE + 1 - width, 1, rows * _TILE + 1 - height))
    windows = padded.unfold(2, _WINDOW, _TILE).unfold(3, _WINDOW, _TILE)  # [R, C, rows, columns, 6, 6]
    windows = windows.permute(4, 5, 0, 2, 3, 1).reshape(_WINDOW * _WINDOW, -1)
    return (torch.kron(_INPUT, _INPUT) @ windows).view(_WINDOW * _WINDOW, -1, channels)
