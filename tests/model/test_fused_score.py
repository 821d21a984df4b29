"""Eq. 4 by hand, and soft-NMS against a loop over the classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cpm_lib.model.fused_score import fuse, soft_nms

CLS, IOU, RSM = torch.tensor([0.9, 0.5]), torch.tensor([0.8, 0.6]), torch.tensor([0.7, 0.2])


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        # 0.72^0.8 * 0.7^0.2 and 0.3^0.8 * 0.2^0.2
        (0.8, [0.715955, 0.276631]),
        (0.5, [(0.72 * 0.7) ** 0.5, (0.3 * 0.2) ** 0.5]),
        (1.0, [0.72, 0.3]),
        (0.0, [0.7, 0.2]),
    ],
)
def test_fuse_by_hand(gamma: float, expected: list[float]) -> None:
    assert fuse(CLS, IOU, RSM, gamma).tolist() == pytest.approx(expected, rel=1e-5)


def test_fuse_without_a_part() -> None:
    assert fuse(CLS, None, None, 0.8).tolist() == pytest.approx([0.9, 0.5])
    # No RSM: the product, without a power.
    assert fuse(CLS, IOU, None, 0.8).tolist() == pytest.approx([0.72, 0.3])
    assert fuse(CLS, None, RSM, 0.8).tolist() == pytest.approx([0.9**0.8 * 0.7**0.2, 0.5**0.8 * 0.2**0.2])
    nothing = torch.zeros(0)
    assert fuse(nothing, nothing, nothing, 0.8).shape == (0,)


def test_fuse_clamps_the_raw_iou_score() -> None:
    cls, rsm = torch.full((3,), 0.5), torch.full((3,), 0.5)
    iou = torch.tensor([-0.1, 1.2, 0.4])
    assert fuse(cls, iou, rsm, 0.8).tolist() == pytest.approx([0.0, 0.5, 0.2**0.8 * 0.5**0.2])
    raw = fuse(cls, iou, rsm, 0.8, clamp=False).tolist()
    assert math.isnan(raw[0]) and raw[1:] == pytest.approx([0.6**0.8 * 0.5**0.2, 0.2**0.8 * 0.5**0.2])
    # Without the power of gamma the negative score stays what it is.
    assert fuse(cls, iou, None, 0.8, clamp=False)[0].item() == pytest.approx(-0.05)


def reference(
    boxes: list[list[float]], scores: list[float], labels: list[int], method: str, minimum: float = 1e-4
) -> list[tuple[int, float]]:
    """Soft-NMS class by class in plain Python, as in its paper; (index, score) by falling score."""

    def overlap(a: list[float], b: list[float]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        both = width * height
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    kept = []
    for label in set(labels):
        remaining = {index: scores[index] for index in range(len(boxes)) if labels[index] == label}
        while remaining:
            best = max(remaining, key=lambda index: remaining[index])
            score = remaining.pop(best)
            if score < minimum:
                break
            kept.append((best, score))
            for index in remaining:
                iou = overlap(boxes[best], boxes[index])
                if method == "gaussian":
                    remaining[index] *= math.exp(-(iou**2) / 0.5)
                elif iou > 0.5:
                    remaining[index] *= 1 - iou
    return sorted(kept, key=lambda pair: -pair[1])


def crowd(number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes of three classes, close together."""
    generator = torch.Generator().manual_seed(seed)
    corner = 12 * torch.rand(number, 2, generator=generator)
    boxes = torch.cat((corner, corner + 10 + 6 * torch.rand(number, 2, generator=generator)), dim=1)
    scores = torch.rand(number, generator=generator)
    return boxes, scores, torch.randint(1, 4, (number,), generator=generator)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@given(number=st.integers(0, 25), seed=st.integers(0, 2**31))
def test_soft_nms_equals_a_loop_over_the_classes(method: str, number: int, seed: int) -> None:
    boxes, scores, labels = crowd(number, seed)
    keep, decayed = soft_nms(boxes, scores, labels, method)  # type: ignore[arg-type]
    expected = reference(boxes.tolist(), scores.tolist(), labels.tolist(), method)
    got = dict(zip(keep.tolist(), decayed.tolist(), strict=True))
    assert len(got) == len(keep), "a box was taken twice"
    # A score within rounding of the minimum may fall on either side.
    for index in {i for i, _ in expected} ^ got.keys():
        assert {**dict(expected), **got}[index] == pytest.approx(1e-4, rel=1e-3)
    for index, score in expected:
        assert got.get(index, score) == pytest.approx(score, rel=1e-4)
    assert (decayed.diff() <= 0).all()


def test_soft_nms_leaves_other_classes_alone() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(3, 1) + torch.tensor([[0.0], [1.0], [0.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    keep, decayed = soft_nms(boxes, scores, torch.tensor([1, 1, 2]))
    iou = 81 / 119
    assert keep.tolist() == [0, 2, 1]
    assert decayed.tolist() == pytest.approx([0.9, 0.7, 0.8 * (1 - iou)])
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7]), "the input is left as it was"
    # Of equal boxes of one class the linear kind keeps one.
    assert soft_nms(boxes[[0, 2]], scores[:2], torch.ones(2))[0].tolist() == [0]


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_of_nothing(method: str) -> None:
    keep, scores = soft_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), method)  # type: ignore[arg-type]
    assert keep.shape == scores.shape == (0,) and keep.dtype == torch.long
    keep, _ = soft_nms(torch.rand(3, 4), torch.full((3,), 1e-5), torch.ones(3), method)  # type: ignore[arg-type]
    assert len(keep) == 0


def test_a_score_that_is_no_number_has_no_rank() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    keep, scores = soft_nms(boxes, torch.tensor([0.9, float("nan"), 0.5]), torch.tensor([1, 1, 1]), min_score=0.0)
    assert keep.tolist() == [0, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.0])
