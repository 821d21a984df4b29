"""Winograd's way gives what the definition of a convolution gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from cpm_lib.model import winograd
from cpm_lib.model.fast_convs import _FastBackward

BLOCKS = st.sampled_from([1, 3, 256])
"""Tiles at a time: part of a row, rows, all."""


@given(
    st.integers(1, 3),
    st.integers(1, 13),
    st.integers(1, 13),
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    BLOCKS,
)
def test_equals_the_definition(
    rois: int, height: int, width: int, inputs: int, outputs: int, biased: bool, block: int
) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    maps = torch.randn(rois, inputs, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
    bias = torch.randn(outputs, generator=generator) if biased else None
    exact = F.conv2d(maps.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_BLOCK", block)
        found = winograd.winograd(maps, weight, bias)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= 2e-5 * exact.abs().max() + 1e-6


def test_parts_of_many_maps_are_as_each_alone() -> None:
    maps, weight = torch.randn(40, 3, 14, 14), torch.randn(2, 3, 3, 3)
    together = winograd.winograd(maps, weight, None)
    alone = torch.cat([winograd.winograd(one[None], weight, None) for one in maps])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 13), BLOCKS)
def test_gradients_equal_those_of_the_definition(rois: int, height: int, width: int, block: int) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    shapes = ((rois, 3, height, width), (4, 3, 3, 3), (4,), (rois, 4, height, width))
    *values, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    exact = torch.autograd.grad(F.conv2d(*(own := leaves(values)), padding=1), own, gradient)
    single = leaves([value.float() for value in values])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_BLOCK", block)
        found = torch.autograd.grad(_FastBackward.apply(*single, 1), single, gradient.float())
    for fast, wanted in zip(found, exact, strict=True):
        assert (fast - wanted).abs().max() <= 2e-5 * wanted.abs().max() + 1e-5


def leaves(values: list[Tensor]) -> list[Tensor]:
    return [value.clone().requires_grad_() for value in values]


def test_one_tile_by_hand() -> None:
    """A filter that only shifts: every result is the pixel left of it, the first column is padding."""
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    shift = torch.zeros(1, 1, 3, 3)
    shift[0, 0, 1, 0] = 1.0
    wanted = [[0.0, 0.0, 1.0, 2.0], [0.0, 4.0, 5.0, 6.0], [0.0, 8.0, 9.0, 10.0], [0.0, 12.0, 13.0, 14.0]]
    torch.testing.assert_close(winograd.winograd(maps, shift, None)[0, 0], torch.tensor(wanted))
