"""Gradients for the weights of 3x3 convolutions with stride 2, as matrix products.

Each of the nine weights per pair of channels multiplies every second pixel with a result, so that its gradient is one
product of two matrices, pixels by channels: [O, N] with [N, C]. In a channels-last map these matrices are there
already, but for a border. On CPUs without AVX-512 oneDNN has no such kernel for channels-last maps and takes three to
five times as long.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

ENABLED = True
"""False: `fast_convs` always takes torch's gradient."""

_STRIDE = 2
_BLOCK = 8192
"""Results at a time: their pixels stay in the cache for all nine products."""


def strided_weight_gradient(input: Tensor, gradient: Tensor) -> Tensor:
    """Gradient [O, C, 3, 3] of the filters of a convolution with padding 1 and stride 2.

    Args:
        input: [B, C, H, W].
        gradient: of the results, [B, O, ceil(H / 2), ceil(W / 2)].
    """
    pixels, results = input.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    batch, height, width, channels = results.shape
    total = input.new_zeros(3, 3, channels, input.shape[1])
    images, rows = max(1, _BLOCK // (height * width)), max(1, _BLOCK // width)
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            block = results[first : first + images, top : top + rows]
            _add_products(total, pixels[first : first + images], block, top * _STRIDE - 1)
    return total.permute(2, 3, 0, 1)


def _add_products(total: Tensor, pixels: Tensor, block: Tensor, above: int) -> None:
    """Add what a block of rows contributes; `above`: the row of `pixels` that its first weight meets, -1 at the top."""
    _, height, width, channels = pixels.shape
    # One further row and column of results, all zero: so the next row is the same number of pixels away everywhere.
    padded = F.pad(block, (0, 0, 0, 1, 0, 1))
    results = padded.reshape(-1, padded.shape[3])
    rows, columns = padded.shape[1] * _STRIDE, padded.shape[2] * _STRIDE
    low, high = max(above, 0), min(above + rows, height)
    around = (0, 0, 1, columns - width - 1, low - above, above + rows - high)
    pixels = F.pad(pixels[:, low:high], around)
    for row in range(_STRIDE):
        for column in range(_STRIDE):
            # The pixels that weight (row, column) meets; those two further meet the next row or column of results.
            met = pixels[:, row::_STRIDE, column::_STRIDE].reshape(-1, channels)
            for down in range(row, 3, _STRIDE):
                for right in range(column, 3, _STRIDE):
                    step = (down - row) // _STRIDE * padded.shape[2] + (right - column) // _STRIDE
                    count = len(results) - step
                    total[down, right].addmm_(results[:count].t(), met[step:])
