"""Matrix products give the gradient that torch gives."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from cpm_lib.model import weight_gradient
from cpm_lib.model.weight_gradient import LargeMapConv, adopt


@pytest.fixture(autouse=True)
def without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@given(
    st.integers(1, 3), st.integers(1, 17), st.integers(1, 17), st.sampled_from([1, 2]), st.sampled_from([8, 60, 999])
)
def test_equals_the_definition(images: int, height: int, width: int, stride: int, block: int) -> None:
    generator = torch.Generator().manual_seed(height * 100 + width)
    maps = torch.randn(images, 3, height, width, generator=generator, dtype=torch.float64)
    results = F.conv2d(maps, torch.zeros(2, 3, 3, 3, dtype=torch.float64), stride=stride, padding=1)
    gradient = torch.randn(results.shape, generator=generator, dtype=torch.float64)
    exact = torch.nn.grad.conv2d_weight(maps, [2, 3, 3, 3], gradient, stride, padding=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_gradient, "_BLOCK", block)
        found = weight_gradient.weight_gradient(maps, gradient, stride)
    torch.testing.assert_close(found, exact)


def test_one_weight_by_hand() -> None:
    """The weight below the middle meets the pixel below each result."""
    pixels = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    gradient = torch.tensor([[10.0, 100.0], [5.0, 7.0]]).view(1, 1, 2, 2)
    found = weight_gradient.weight_gradient(pixels, gradient)
    assert float(found[0, 0, 2, 1]) == 10 * 3 + 100 * 4
    assert float(found[0, 0, 1, 1]) == 10 * 1 + 100 * 2 + 5 * 3 + 7 * 4


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_every_gradient(stride: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = LargeMapConv(64, 64, 3, stride=stride, padding=1, bias=bias)
    maps = torch.randn(2, 64, 64, 66).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert conv.suits(maps, conv.weight)
    (conv(maps) ** 2).mean().backward()
    found = [maps.grad, *(parameter.grad for parameter in conv.parameters())]
    maps.grad = None
    conv.zero_grad()
    monkeypatch.setattr(weight_gradient, "ENABLED", False)
    (conv(maps) ** 2).mean().backward()
    for fast, plain in zip(found, [maps.grad, *(parameter.grad for parameter in conv.parameters())], strict=True):
        assert fast is not None and plain is not None
        assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_only_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = LargeMapConv(64, 64, 3, padding=1)
    maps = torch.randn(1, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    assert conv.suits(maps, conv.weight)
    assert not conv.suits(maps.contiguous(), conv.weight), "channels first"
    assert not conv.suits(maps.double(), conv.weight)
    assert not conv.suits(maps[:, :, :16, :16].contiguous(memory_format=torch.channels_last), conv.weight), "small"
    assert not conv.suits(maps, conv.weight.detach()), "frozen"
    assert not LargeMapConv(64, 64, 3, padding=2, dilation=2).suits(maps, conv.weight)
    assert not LargeMapConv(64, 32, 3, padding=1).suits(maps, conv.weight), "narrow"
    with torch.no_grad():
        assert not conv.suits(maps, conv.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not conv.suits(maps, conv.weight)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not conv.suits(maps, conv.weight), "oneDNN has a kernel of its own"


def test_adopted_convolutions_keep_weights_names_and_results() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, bias=False)))
    plain.append(nn.Conv2d(5, 2, 1))
    large = copy.deepcopy(plain)
    adopt(large)
    assert [type(large[0]), type(large[1][0]), type(large[2])] == [LargeMapConv, LargeMapConv, nn.Conv2d]
    assert large.state_dict().keys() == plain.state_dict().keys()
    pixels = torch.randn(1, 3, 9, 9)
    assert torch.equal(large(pixels), plain(pixels))
