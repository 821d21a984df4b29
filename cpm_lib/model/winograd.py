"""3x3 convolutions and their gradients with a third of the multiplications (Winograd).

F(4x4, 3x3): a tile of 4x4 results needs 36 products per pair of channels instead of 144. Tiles and filters are
transformed by fixed matrices, multiplied element by element (here: 36 matrix products over the channels), and
transformed back (Lavin and Gray, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

ENABLED = True
"""False: `fast_convs` always takes torch's convolution."""

_TILE, _WINDOW = 4, 6
_PLACES = _WINDOW * _WINDOW

_BLOCK = 256
"""Tiles at a time."""

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

# Once for the rows and once for the columns of a window.
_INPUT_2D, _FILTER_2D, _OUTPUT_2D = (torch.kron(matrix, matrix) for matrix in (_INPUT, _FILTER, _OUTPUT))


def count_tiles(input: Tensor) -> int:
    """How many tiles maps [R, C, H, W] have together."""
    return len(input) * math.ceil(input.shape[2] / _TILE) * math.ceil(input.shape[3] / _TILE)


def winograd(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.conv2d` with padding 1 of maps [R, C, H, W] with filters [O, C, 3, 3]; [R, O, H, W], channels-last.

    Equal up to rounding: about four times that of the direct form, 7e-6 of the largest value.
    """
    maps, channels, height, width = input.shape
    filters = (_FILTER_2D @ weight.reshape(-1, 9).t()).view(_PLACES, -1, channels).transpose(1, 2)
    results = input.new_empty(maps, height, width, len(weight))
    for block in _blocks(results):
        products = torch.bmm(_tiles(input, block), filters)
        tiles = (_OUTPUT_2D @ products.view(_PLACES, -1)).view(_TILE, _TILE, *block.tiles, -1)
        tiles = tiles.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)
        part = results[block.maps, block.rows]
        part.copy_(tiles[:, : part.shape[1], :width])
    if bias is not None:
        results += bias
    return results.permute(0, 3, 1, 2)


def winograd_weight_gradient(input: Tensor, gradient: Tensor) -> Tensor:
    """Gradient [O, C, 3, 3] of the filters, for that of the results, [R, O, H, W]."""
    outputs, width = gradient.shape[1], gradient.shape[3]
    results = gradient.permute(0, 2, 3, 1)
    total = input.new_zeros(_PLACES, outputs, input.shape[1])
    for block in _blocks(results):
        part = results[block.maps, block.rows]
        maps, rows, columns = block.tiles
        part = F.pad(part, (0, 0, 0, columns * _TILE - width, 0, rows * _TILE - part.shape[1]))
        part = part.view(maps, rows, _TILE, columns, _TILE, outputs).permute(2, 4, 0, 1, 3, 5)
        of_products = _OUTPUT_2D.t() @ part.reshape(_TILE * _TILE, -1)
        total.baddbmm_(of_products.view(_PLACES, -1, outputs).transpose(1, 2), _tiles(input, block))
    of_weight = _FILTER_2D.t() @ total.view(_PLACES, -1)
    return of_weight.t().reshape(outputs, -1, 3, 3)


class _Block(NamedTuple):
    """Results of whole tiles that are computed together."""

    maps: slice
    rows: slice
    tiles: tuple[int, int, int]
    """Maps, rows and columns of tiles."""


def _blocks(results: Tensor) -> Iterator[_Block]:
    """Blocks of all results [R, H, W, O], so small that their tiles stay in the cache."""
    maps, height, width = results.shape[:3]
    all_rows, columns = math.ceil(height / _TILE), math.ceil(width / _TILE)
    images, rows = max(1, _BLOCK // (all_rows * columns)), max(1, _BLOCK // columns)
    for first in range(0, maps, images):
        for top in range(0, all_rows, rows):
            last, bottom = min(first + images, maps), min(top + rows, all_rows)
            tiles = (last - first, bottom - top, columns)
            yield _Block(slice(first, last), slice(top * _TILE, min(bottom * _TILE, height)), tiles)


def _tiles(input: Tensor, block: _Block) -> Tensor:
    """Transformed windows of the maps [R, C, H, W] that meet the results of a block: [36, tiles, C]."""
    channels, height, width = input.shape[1:]
    _, rows, columns = block.tiles
    above, below = block.rows.start - 1, block.rows.start + rows * _TILE + 1
    part = input.permute(0, 2, 3, 1)[block.maps, max(above, 0) : min(below, height)]
    around = (0, 0, 1, columns * _TILE + 1 - width, max(-above, 0), max(below - height, 0))
    windows = F.pad(part, around).unfold(1, _WINDOW, _TILE).unfold(2, _WINDOW, _TILE)  # [R, rows, columns, C, 6, 6]
    windows = windows.permute(4, 5, 0, 1, 2, 3).reshape(_PLACES, -1)
    return (_INPUT_2D @ windows).view(_PLACES, -1, channels)
