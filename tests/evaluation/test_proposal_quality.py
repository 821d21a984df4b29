"""Proposals against objects by size, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation import proposal_quality
from tests.evaluation.samples import annotation, detection, truth

LIMITS = (8.0, 12.0)


def scene() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    coco = truth(
        annotation(1, 1, [0, 0, 6, 6]),
        annotation(1, 1, [20, 0, 30, 10]),
        annotation(2, 2, [40, 0, 60, 20]),
        annotation(2, 2, [0, 0, 100, 100], iscrowd=1),
        images=3,
    )
    # The medium object's proposal lacks a fifth below. The large one's is 2 pixels to the right: 360 of 440 pixels.
    found = [
        detection([], [], [], 1, proposals=[[20, 0, 30, 8], [20, 0, 30, 6]]),
        detection([], [], [], 2, proposals=[[42, 0, 62, 20]]),
    ]
    return coco, found


def test_by_hand() -> None:
    coco, found = scene()
    whole, small, medium, large = proposal_quality(found, coco, area_limits=LIMITS, thresholds=(0.5, 0.81))
    assert [row["size"] for row in (whole, small, medium, large)] == ["all", "small", "medium", "large"]
    nothing = {"objects": 1, "iou": 0, "recall": [0, 0], "found": 0, "cut": None, "cut_objects": None}
    assert small == {"size": "small", **nothing}
    assert (medium["iou"], medium["recall"], medium["found"]) == (pytest.approx(0.8), [1, 0], 1)
    assert (large["iou"], large["recall"], large["found"]) == (pytest.approx(360 / 440), [1, 1], 1)
    assert (medium["cut"], large["cut"]) == pytest.approx((0.2, 0.1))
    assert medium["cut_objects"] == large["cut_objects"] == 1
    assert (whole["objects"], whole["found"]) == (3, 2)
    assert whole["iou"] == pytest.approx((0 + 0.8 + 360 / 440) / 3)
    assert whole["recall"] == pytest.approx([2 / 3, 1 / 3])
    assert whole["cut"] == pytest.approx(0.15)


@pytest.mark.parametrize(("ratio", "cut", "objects"), [(1.0, 0.2, 1), (1.25, 0.1, 1), (1.5, 0, 0)])
def test_mapping_ratio_extends_what_is_seen(ratio: float, cut: float, objects: int) -> None:
    """A proposal 8 pixels high grows by 1 and 2 pixels on either side."""
    coco, found = scene()
    medium = proposal_quality(found, coco, area_limits=LIMITS, mapping_ratio=ratio)[2]
    assert (medium["cut"], medium["cut_objects"]) == (pytest.approx(cut), objects)
    assert medium["iou"] == pytest.approx(0.8)


def test_any_boxes_of_any_class_and_images_left_out() -> None:
    coco, found = scene()
    bare = [{"image_id": d["image_id"], "all": d["proposals"]} for d in found]
    assert proposal_quality(bare, coco, boxes="all") == proposal_quality(found, coco)
    whole = proposal_quality(found[1:], coco)[0]
    assert (whole["objects"], whole["found"]) == (3, 1)
    with pytest.raises(UserError, match="image 1: no 'proposals'"):
        proposal_quality(bare, coco)


def test_empty() -> None:
    coco, found = scene()
    for none in ([], [{"image_id": 1, "proposals": torch.zeros(0, 4)}]):
        whole = proposal_quality(none, coco)[0]
        assert (whole["objects"], whole["iou"], whole["found"], whole["cut"]) == (3, 0, 0, None)
        # With 0 as the least IoU there is still no proposal to be cut.
        assert proposal_quality(none, coco, min_iou=0)[0]["found"] == 0
    nothing = proposal_quality(found, truth(images=3))
    assert all(row["objects"] == 0 and row["iou"] is None and row["recall"] == [None] * 3 for row in nothing)


def test_sizes_are_those_of_evaluate() -> None:
    """An object exactly on a limit counts on both sides; `area`, where given, decides."""
    coco = truth(annotation(1, 1, [0, 0, 8, 8]), annotation(1, 1, [20, 0, 40, 20], area=30.0))
    assert [row["objects"] for row in proposal_quality([], coco, area_limits=LIMITS)] == [2, 2, 1, 0]
