"""Pooling: the CPU's two matrix products against torchvision's kernel; levels; matching."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cpm_lib import _torchvision
from cpm_lib.model.regions import Batch, Regions, RoIPooler, assign_levels, match


def features(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 5, 64 >> level, 48 >> level, generator=generator) for level in range(4)]


def regions(*boxes: list[float], image: int = 0) -> Regions:
    zeros = torch.zeros(len(boxes), dtype=torch.long)
    return Regions(torch.tensor(boxes).reshape(-1, 4), zeros + image, zeros, torch.ones(len(boxes)))


# Ordinary, across each border, wholly outside, smaller than a pixel, inverted, larger than the image.
DIFFICULT = [
    [10.0, 20.0, 90.5, 77.25],
    [-30.0, -20.0, 40.0, 50.0],
    [150.0, 200.0, 260.0, 300.0],
    [-90.0, -90.0, -60.0, -50.0],
    [33.0, 33.0, 33.2, 33.1],
    [60.0, 60.0, 20.0, 10.0],
    [-50.0, -50.0, 500.0, 500.0],
]


@pytest.mark.parametrize("size", [7, 14])
def test_both_ways_of_pooling_agree(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, for RoIs in all positions and both images."""
    results = []
    for fast in (True, False):
        monkeypatch.setattr(_torchvision, "FAST_CPU", fast)
        maps = [level.requires_grad_() for level in features()]
        both = regions(*DIFFICULT, *DIFFICULT)
        both.image = torch.arange(2).repeat(len(DIFFICULT))
        pooled = RoIPooler(size, 64.0, plus_one=False)(maps, both)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
        (pooled * weights).sum().backward()
        results.append([pooled.detach(), *[level.grad for level in maps]])
    for fast_result, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast_result, plain, rtol=1e-5, atol=1e-5)


def test_pooling_without_waiting_for_a_gpu_agrees() -> None:
    """The way of GPUs, forward and backward, taken here on the CPU."""
    results = []
    for waits in (True, False):
        maps = [level.requires_grad_() for level in features()]
        both = regions(*DIFFICULT, *DIFFICULT)
        both.image = torch.arange(2).repeat(len(DIFFICULT))
        pool = RoIPooler(7, 64.0, plus_one=False)
        rois = torch.cat((both.image[:, None].float(), both.boxes), dim=1)
        pooled = pool(maps, both) if waits else pool.without_waiting(maps, rois, assign_levels(both.boxes, 64.0, False))
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1))
        (pooled * weights).sum().backward()
        results.append([pooled.detach(), *[level.grad for level in maps]])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_pooling_keeps_the_order_of_the_regions() -> None:
    several = regions([0.0, 0.0, 300.0, 300.0], [5.0, 5.0, 20.0, 20.0], [0.0, 0.0, 120.0, 120.0])
    pool = RoIPooler(7, 64.0, plus_one=False)
    together = pool(features(1), several)
    for number in range(3):
        alone = pool(features(1), several[torch.tensor([number])])
        torch.testing.assert_close(together[number], alone[0])


def test_no_regions_and_gradients_all_the_same() -> None:
    maps = [level.requires_grad_() for level in features()]
    pooled = RoIPooler(7, 64.0, plus_one=False)(maps, regions())
    assert pooled.shape == (0, 5, 7, 7)
    pooled.sum().backward()


def test_levels_follow_fpns_rule() -> None:
    sides = torch.tensor([1.0, 111.0, 112.0, 223.0, 224.0, 448.0, 5000.0])
    boxes = torch.stack((torch.zeros(7), torch.zeros(7), sides, sides), dim=1)
    assert assign_levels(boxes, 224.0, plus_one=False).tolist() == [2, 2, 3, 3, 4, 5, 5]
    nan = torch.full((1, 4), float("nan"))
    assert assign_levels(nan, 224.0, plus_one=False).tolist() == [2]


def test_matching_stays_within_the_image() -> None:
    box, other = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]
    both = regions(box, box)
    both.image = torch.tensor([0, 1])
    truth = [torch.tensor([other]), torch.zeros(0, 4)]
    labels = [torch.tensor([3]), torch.zeros(0, dtype=torch.long)]
    overlap, matched, label = match(both, Batch(torch.zeros(0), [(20, 20)] * 2, [0, 1], truth, labels), False)
    assert overlap.tolist() == [0.5, 0.0]
    assert matched.tolist() == [other, box]
    assert label.tolist() == [3, 0]


def test_coordinates_stay_exact_under_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel coordinate of 1001 would become 1000 in bfloat16."""
    monkeypatch.setattr(_torchvision, "FAST_CPU", False)
    maps = torch.zeros(1, 1, 400, 400)
    maps[..., 252:] = 1.0
    roi = torch.tensor([[0.0, 1001.0, 0.0, 1015.0, 14.0]])
    with torch.autocast("cpu", torch.bfloat16):
        pooled = _torchvision.roi_align(maps.bfloat16(), roi, 7, 0.25, sampling_ratio=2)
    exact = _torchvision.roi_align(maps, roi, 7, 0.25, sampling_ratio=2)
    assert exact.min() < exact.max(), "the edge of the map runs through the RoI"
    torch.testing.assert_close(pooled.float(), exact)
