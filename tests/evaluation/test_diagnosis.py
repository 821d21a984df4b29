"""Diagnosis measures against cases worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation import (
    border_positions,
    borders_by_stage,
    coverage,
    match,
    misalignment,
    regions,
    score_by_truncation,
    score_columns,
    score_correlation,
)
from tests.evaluation import samples
from tests.evaluation.samples import truth


def annotation(image: int, category: int, box: list[float], **extra: Any) -> dict[str, Any]:
    return {"id": 0, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **extra}


COCO = {
    "images": [{"id": 4}, {"id": 2}],
    "categories": [{"id": 10, "name": "a"}, {"id": 20, "name": "b"}],
    "annotations": [
        annotation(2, 10, [0, 0, 10, 10], truncation=0.0, occlusion=0.0),
        annotation(2, 10, [20, 0, 10, 10], truncation=0.2, occlusion=0.0),
        annotation(2, 20, [0, 0, 10, 10], truncation=0.0, occlusion=0.6),
        annotation(2, 20, [40, 40, 10, 10], iscrowd=1, truncation=0.0, occlusion=0.0),
    ],
}


def detections() -> list[dict[str, Any]]:
    boxes = torch.tensor([[0, 0, 10, 5], [21, 0, 30, 10], [0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 10, 9]]).float()
    return [
        {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "scores": torch.ones(1), "labels": torch.tensor([1])},
        {
            "boxes": boxes,
            "scores": torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]),
            "cls_scores": torch.tensor([0.6, 0.7, 0.8, 0.9, 1.0]),
            "labels": torch.tensor([1, 1, 2, 2, 1]),
            "proposals": boxes.flip(0),
        },
    ]


def test_match() -> None:
    result = match(detections(), COCO)
    assert result.image_ids.tolist() == [4, 2, 2, 2, 2, 2]
    assert result.rows.tolist() == [0, 0, 1, 2, 3, 4]
    torch.testing.assert_close(result.ious, torch.tensor([0.0, 0.5, 0.9, 1.0, 0.0, 0.9]))
    assert result.gt_index.tolist() == [-1, 0, 1, 2, 2, 0]  # no overlap still names an object of the class
    assert result.gt_boxes[2].tolist() == [20, 0, 30, 10]
    assert result.gt_boxes[0].isnan().all()
    assert len(result.select(result.ious > 0.5)) == 3
    entering = match([{**detections()[1], "image_id": 2}], COCO, boxes="proposals")
    torch.testing.assert_close(entering.ious, torch.tensor([0.9, 0.0, 1.0, 0.0, 0.5]))
    assert len(match([], COCO)) == 0


def test_correlation_by_hand() -> None:
    scores, ious = torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0.2, 0.4, 0.6, 0.7])
    result = score_correlation(scores, ious)
    assert result["spearman"] == pytest.approx(1.0)
    assert result["pearson"] == pytest.approx(0.1975 / (0.3875 * 0.1475) ** 0.5)
    assert result["calibration_error"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.2) / 4)
    # Ties share their mean rank: ranks (0.5, 0.5, 2) against (0, 1, 2).
    tied = score_correlation(torch.tensor([0.5, 0.5, 0.8]), torch.tensor([0.1, 0.2, 0.3]))
    assert tied["spearman"] == pytest.approx(0.8660, abs=1e-4)
    assert score_correlation(torch.ones(3), torch.rand(3))["pearson"] is None
    assert score_correlation(torch.zeros(0), torch.zeros(0)) == {
        "pearson": None,
        "spearman": None,
        "calibration_error": None,
        "n": 0,
    }


def test_calibration_pools_within_a_bin() -> None:
    # Errors of opposite sign within one bin cancel: the bin as a whole is right.
    assert score_correlation(torch.tensor([0.52, 0.58]), torch.tensor([0.58, 0.52]))[
        "calibration_error"
    ] == pytest.approx(0)


def test_border_positions() -> None:
    rois = torch.tensor([[10.0, 20, 30, 60], [10, 20, 30, 60], [5, 5, 5, 9]])
    gt = torch.tensor([[10.0, 20, 30, 60], [0, 30, 25, 80], [0, 0, 1, 1]])
    positions = border_positions(rois, gt)
    torch.testing.assert_close(positions[:2], torch.tensor([[0.0, 0, 1, 1], [-0.5, 0.25, 0.75, 1.5]]))
    assert positions[2, 0].isnan() and positions[2, 2].isnan()


@pytest.mark.parametrize(
    ("gt", "ratio", "points", "borders"),
    [
        ([0, 0, 10, 10], 1.0, 9, 4),  # equal: the edge itself counts
        ([-2, 0, 10, 10], 1.0, 6, 3),  # the left column is outside
        ([-2, 0, 10, 10], 1.5, 9, 4),
        ([-2, -2, 12, 12], 1.25, 1, 0),  # only the centre
        ([-2, -2, 12, 12], 1.5, 9, 4),
        ([-6, 0, 10, 10], 2.0, 6, 3),
        ([20, 20, 30, 30], 2.0, 0, 0),
    ],
)
def test_coverage(gt: list[float], ratio: float, points: int, borders: int) -> None:
    roi = torch.tensor([[0.0, 0, 10, 10]])
    result = coverage(roi, torch.tensor([gt]).float(), ratio)
    torch.testing.assert_close(result.points, torch.tensor([points / 9]))
    torch.testing.assert_close(result.borders, torch.tensor([borders / 4]))


def test_coverage_contains_every_ground_truth_of_itself() -> None:
    boxes = torch.rand(200, 4) * 100
    boxes[:, 2:] += boxes[:, :2]
    assert coverage(boxes, boxes, 1.0).points.eq(1).all()
    assert coverage(boxes[:0], boxes[:0], 2.0).points.shape == (0,)


def test_score_by_truncation() -> None:
    found = detections()
    found[0]["cls_scores"] = torch.ones(1)
    groups = score_by_truncation(found, COCO, edges=(0.0, 0.3, 1.0))
    assert [(g["low"], g["high"], g["n"]) for g in groups] == [(0.0, 0.0, 1), (0.0, 0.3, 1), (0.3, 1.0, 1)]
    assert [g["cls_scores"] for g in groups] == pytest.approx([1.0, 0.7, 0.8])
    assert [g["scores"] for g in groups] == pytest.approx([0.5, 0.2, 0.3])
    assert [g["iou"] for g in groups] == pytest.approx([0.9, 0.9, 1.0])
    cut = score_by_truncation(found, COCO, by="truncation", edges=(0.0, 0.3, 1.0))
    assert [g["n"] for g in cut] == [2, 1, 0] and cut[2]["iou"] is None
    bare = {**COCO, "annotations": [annotation(2, 10, [0, 0, 10, 10])]}
    with pytest.raises(UserError, match="truncation"):
        score_by_truncation(found, bare)


def test_misalignment_in_numbers() -> None:
    """One object, its proposal a quarter of a side too far left: the right border is outside until the ratio is 2."""
    coco = {
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 0}
        ],
    }
    detection = {
        "boxes": torch.tensor([[50.0, 50.0, 90.0, 90.0]]),
        "proposals": torch.tensor([[40.0, 50.0, 80.0, 90.0]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.9]),
        "cls_scores": torch.tensor([0.9]),
        "image_id": 1,
    }
    measured = misalignment([detection], coco)
    assert measured["n"] == 1
    without, *_, twice = measured["coverage"]
    assert (without["ratio"], without["borders"], without["all_borders"]) == (1, 0.75, 0)
    assert (twice["ratio"], twice["all_borders"]) == (2, 1)
    assert set(measured["correlation"]) == {"cls_scores", "scores"}


def one_object(**parts: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An object of 10 x 10 pixels whose proposal is 2 pixels too far to the right, and after one stage 1 pixel."""
    return truth(samples.annotation(1, 1, [0, 0, 10, 10])), [
        samples.detection(
            [[0, 0, 10, 10]],
            [0.9],
            [1],
            proposals=[[2, 0, 12, 10]],
            stage_boxes=[[[1, 0, 11, 10], [0, 0, 10, 10]]],
            **parts,
        )
    ]


def test_borders_by_stage() -> None:
    coco, found = one_object()
    proposal, stage1, final = borders_by_stage(found, coco)
    assert [row["region"] for row in (proposal, stage1, final)] == ["proposal", "stage1", "final"]
    assert {row["n"] for row in (proposal, stage1, final)} == {1}
    assert [row["iou"] for row in (proposal, stage1, final)] == pytest.approx([8 / 12, 9 / 11, 1])
    assert [row["outside"] for row in (proposal, stage1, final)] == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # 0.2 and 0.1 sides beyond the left edge; a region around the same centre grows on both sides.
    assert [row["needed_ratio"]["p50"] for row in (proposal, stage1, final)] == pytest.approx([1.4, 1.2, 1])
    borders = [[share["borders"] for share in row["coverage"]] for row in (proposal, stage1, final)]
    assert borders == [[0.75, 0.75, 1, 1], [0.75, 1, 1, 1], [1, 1, 1, 1]]
    assert misalignment(found, coco)["coverage"] == proposal["coverage"]
    # The raw positions of any stage, as the histogram wants them.
    positions = border_positions(regions(found)["stage1"], torch.tensor([[0.0, 0, 10, 10]]))
    torch.testing.assert_close(positions, torch.tensor([[-0.1, 0, 0.9, 1]]))


def test_borders_by_stage_without_anything() -> None:
    coco, found = one_object()
    for rows in (
        borders_by_stage([], coco),
        borders_by_stage(found, truth()),
        borders_by_stage(found, coco, min_iou=0.9),
    ):
        for row in rows:
            assert (row["n"], row["iou"], row["needed_ratio"]["p99"]) == (0, None, None)
            assert row["outside"] == [None] * 4 and row["coverage"][0]["borders"] is None
    assert [row["region"] for row in borders_by_stage([], coco)] == ["proposal", "final"]
    with pytest.raises(UserError, match="proposals"):
        borders_by_stage([{key: value for key, value in found[0].items() if key != "proposals"}], coco)


def test_regions_and_scores_are_columns() -> None:
    _, [found] = one_object(cls_scores=[0.8], iou_scores=[1.5], rsm_scores=[0.5])
    seen = regions([found, found])
    assert list(seen) == ["proposal", "stage1", "final"]
    assert seen["stage1"].tolist() == [[1, 0, 11, 10]] * 2
    columns = score_columns([found], gamma=0.5)
    assert list(columns) == ["cls_scores", "iou_scores", "rsm_scores", "scores", "cls_ism", "cls_rsm", "fused"]
    # The raw IoU score stays raw, and is clamped to 1 in Eq. 4.
    assert columns["iou_scores"].tolist() == [1.5]
    assert columns["cls_ism"].tolist() == pytest.approx([0.8])
    assert columns["fused"].tolist() == pytest.approx([(0.8 * 0.5) ** 0.5])
    assert list(score_columns([{"scores": torch.ones(1)}], gamma=0.5)) == ["scores"]
