"""Boxes: the mapping operation, coding and IoU, by their properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from cpm_lib import boxes as box_ops
from tests.strategies import boxes

RATIOS = st.sampled_from([1.0, 1.25, 1.5, 2.0, 2.5])


@given(boxes(), RATIOS)
def test_extending_scales_the_sides_and_keeps_the_centre(regions: Tensor, ratio: float) -> None:
    extended = box_ops.extend_regions(regions, ratio)
    torch.testing.assert_close(extended[:, 2:] - extended[:, :2], ratio * (regions[:, 2:] - regions[:, :2]))
    torch.testing.assert_close(extended[:, :2] + extended[:, 2:], regions[:, :2] + regions[:, 2:], rtol=1e-5, atol=1e-3)


@given(boxes(), RATIOS)
def test_extending_can_be_undone(regions: Tensor, ratio: float) -> None:
    back = box_ops.extend_regions(box_ops.extend_regions(regions, ratio), 1 / ratio)
    torch.testing.assert_close(back, regions, rtol=1e-5, atol=1e-3)


@given(boxes(), boxes())
def test_iou_is_torchvisions(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(box_ops.iou(first, second), box_iou(first, second))


@pytest.mark.parametrize("plus_one", [False, True])
@given(first=boxes(max_count=1), second=boxes(max_count=1))
def test_decoding_undoes_encoding(first: Tensor, second: Tensor, plus_one: bool) -> None:
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = box_ops.encode(first, second, weights, plus_one)
    torch.testing.assert_close(box_ops.decode(deltas, first, weights, plus_one), second, rtol=1e-4, atol=1e-2)


def test_degenerate_boxes_have_no_overlap_instead_of_nan() -> None:
    point, inverted = [5.0, 5.0, 5.0, 5.0], [8.0, 8.0, 2.0, 2.0]
    overlap = box_ops.iou(torch.tensor([point, inverted]), torch.tensor([point, [0.0, 0.0, 10.0, 10.0]]))
    assert overlap.isfinite().all()
    assert overlap.max() <= 1


def test_the_last_pixel_counts_with_plus_one() -> None:
    box = torch.tensor([[0.0, 0.0, 9.0, 4.0]])
    assert box_ops.area(box) == 36
    assert box_ops.area(box, plus_one=True) == 50
    assert box_ops.clip(torch.tensor([[-5.0, -5.0, 99.0, 99.0]]), (20, 30)).tolist() == [[0, 0, 30, 20]]
    assert box_ops.clip(torch.tensor([[-5.0, -5.0, 99.0, 99.0]]), (20, 30), plus_one=True).tolist() == [[0, 0, 29, 19]]
