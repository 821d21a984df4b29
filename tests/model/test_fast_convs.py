"""Convolutions on a faster way: the same results, the same gradients, and only where it is faster."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cpm_lib.model import strided_gradient, winograd
from cpm_lib.model.fast_convs import LargeMapConv, SmallMapConv, adopt


@pytest.fixture(autouse=True)
def without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_every_gradient(stride: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = LargeMapConv(128, 128, 3, stride=stride, padding=1, bias=bias)
    maps = torch.randn(2, 128, 64, 66).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert conv.suits(maps, conv.weight)
    (conv(maps) ** 2).mean().backward()
    found = [maps.grad, *(parameter.grad for parameter in conv.parameters())]
    maps.grad = None
    conv.zero_grad()
    monkeypatch.setattr(winograd, "ENABLED", False)
    monkeypatch.setattr(strided_gradient, "ENABLED", False)
    (conv(maps) ** 2).mean().backward()
    for fast, plain in zip(found, [maps.grad, *(parameter.grad for parameter in conv.parameters())], strict=True):
        assert fast is not None and plain is not None
        assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_large_maps_only_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = LargeMapConv(128, 128, 3, padding=1)
    maps = torch.randn(1, 128, 32, 32).contiguous(memory_format=torch.channels_last)
    assert conv.suits(maps, conv.weight)
    assert not conv.suits(maps.contiguous(), conv.weight), "channels first"
    assert not conv.suits(maps.double(), conv.weight)
    assert not conv.suits(maps[:, :, :16, :16].contiguous(memory_format=torch.channels_last), conv.weight), "small"
    assert not conv.suits(maps, conv.weight.detach()), "frozen"
    assert not LargeMapConv(128, 128, 3, padding=2, dilation=2).suits(maps, conv.weight)
    assert not LargeMapConv(128, 64, 3, padding=1).suits(maps, conv.weight), "narrow"
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


def test_small_maps_only_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(24, 256, 7, 7)
    conv = SmallMapConv(256, 256, 3, padding=1)
    with torch.no_grad():
        assert conv.suits(maps)
        assert not conv.suits(maps[:0]) and not conv.suits(maps.double())
        assert not conv.suits(maps[1:]), "the filters' transformation costs more"
        assert not SmallMapConv(256, 256, 3, padding=1, stride=2).suits(maps)
        assert not SmallMapConv(256, 256, 3, padding=2, dilation=2).suits(maps)
        assert not SmallMapConv(256, 72, 3, padding=1).suits(maps)
        with torch.autocast("cpu", torch.bfloat16):
            assert not conv.suits(maps)
        fast = conv(maps)
        monkeypatch.setattr(winograd, "ENABLED", False)
        direct = conv(maps)
        assert (fast - direct).abs().max() <= 2e-5 * direct.abs().max()
    assert conv.suits(maps), "with a gradient, too"
