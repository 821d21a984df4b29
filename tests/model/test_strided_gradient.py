"""Matrix products give the gradient that torch gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from cpm_lib.model import strided_gradient


@given(st.integers(1, 3), st.integers(1, 17), st.integers(1, 17), st.sampled_from([8, 60, 999]))
def test_equals_the_definition(images: int, height: int, width: int, block: int) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    maps = torch.randn(images, 3, height, width, generator=generator, dtype=torch.float64)
    results = F.conv2d(maps, torch.zeros(2, 3, 3, 3, dtype=torch.float64), stride=2, padding=1)
    gradient = torch.randn(results.shape, generator=generator, dtype=torch.float64)
    exact = torch.nn.grad.conv2d_weight(maps, [2, 3, 3, 3], gradient, 2, padding=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strided_gradient, "_BLOCK", block)
        found = strided_gradient.strided_weight_gradient(maps, gradient)
    torch.testing.assert_close(found, exact)


def test_one_weight_by_hand() -> None:
    """The weight below the middle meets every second pixel of every second row; rows are counted from 0."""
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    gradient = torch.tensor([[10.0, 100.0], [5.0, 7.0]]).view(1, 1, 2, 2)
    found = strided_gradient.strided_weight_gradient(pixels, gradient)
    assert float(found[0, 0, 2, 1]) == 10 * 4 + 100 * 6 + 5 * 12 + 7 * 14
    assert float(found[0, 0, 1, 1]) == 10 * 0 + 100 * 2 + 5 * 8 + 7 * 10
