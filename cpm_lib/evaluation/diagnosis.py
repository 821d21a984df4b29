"""The two misalignments of Fig. 1, measured: RoI against ground truth, and score against true IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpm_lib.boxes import extend_regions
from cpm_lib.evaluation.calibration import score_correlation
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.evaluation.matching import match, paired_iou, regions, score_columns


def border_positions(rois: Tensor, gt: Tensor) -> Tensor:
    """Where the ground truth's sides fall, in units of the RoI (Fig. 1 top).

    Args:
        rois, gt: [N,4] xyxy in pixels, one ground truth per RoI.

    Returns:
        [N,4] left, top, right, bottom side of the ground truth; 0 is the RoI's left or top edge and 1 its right or
        bottom edge, so below 0 and above 1 lie outside what an unextended RoI shows. NaN for RoIs without extent.
    """
    rois, gt = rois.float(), gt.float()
    size = (rois[:, 2:] - rois[:, :2]).repeat(1, 2)
    return torch.where(size > 0, (gt - rois[:, :2].repeat(1, 2)) / size, torch.nan)


@dataclass(frozen=True)
class Coverage:
    """Shares in 0..1 per RoI, [N] each: of the 9 grid points, and of the 4 borders, that the region contains."""

    points: Tensor
    borders: Tensor


def coverage(rois: Tensor, gt: Tensor, mapping_ratio: float, *, grid: int = 3) -> Coverage:
    """What a heatmap over the extended RoI can express at all (Fig. 1 top, Sec. 3.2).

    Args:
        rois, gt: [N,4] xyxy in pixels, one ground truth per RoI.
        mapping_ratio: 1 is the RoI itself, 2 a region of twice the side around the same centre.
    """
    region = extend_regions(rois.float(), mapping_ratio)
    low, high = region[:, None, :2], region[:, None, 2:]
    steps = torch.linspace(0.0, 1.0, grid, device=gt.device)[None, :, None]
    start, end = gt[:, None, :2].float(), gt[:, None, 2:].float()
    # Interpolated from both ends so that the last point is the ground truth's edge itself, unrounded.
    lines = start * (1 - steps) + end * steps  # [N, grid, 2]: x of the columns, y of the rows
    inside = (lines >= low) & (lines <= high)
    points = (inside[:, None, :, 0] & inside[:, :, None, 1]).flatten(1).float().mean(dim=1)
    borders = inside[:, [0, -1]].flatten(1).float().mean(dim=1)
    return Coverage(points, borders)


def borders_by_stage(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    ratios: Sequence[float] = (1.0, 1.25, 1.5, 2.0),
    min_iou: float = 0.5,
) -> list[dict[str, Any]]:
    """Where the ground truth's borders lie relative to the RoI that enters each stage (Fig. 1 top, Sec. 3.2).

    The proposal decides which object a RoI belongs to, and whether it counts; all stages speak of the same RoIs.

    Args:
        detections: as `predict` gives them: with `proposals`, and `stage_boxes` where there are several stages.
        ratios: mapping ratios whose reach is measured.
        min_iou: least IoU of a proposal with its object.

    Returns:
        One dict per region, in order: "region" ("proposal" enters stage 1, "stage1" stage 2, ...; "final" is the
        output), n, iou (mean with the object); "coverage" as in `misalignment`; "outside", the mean share 0..1 of
        RoIs beyond whose left, top, right and bottom side the object reaches, and "needed_ratio": the mapping
        ratio that would show all four borders of 50, 90 and 99 % of the RoIs ("p50", "p90", "p99"; at least 1).
        Values are None without a RoI.
    """
    entering = match(detections, ground_truth, boxes="proposals")
    kept = (entering.ious >= min_iou) & (entering.gt_index >= 0)
    objects = entering.gt_boxes[kept]
    rows = []
    for name, boxes in regions(detections).items():
        rois = boxes[kept]
        positions = border_positions(rois, objects)
        beyond = torch.cat([-positions[:, :2], positions[:, 2:] - 1], dim=1)
        beyond = beyond[beyond.isfinite().all(dim=1)]
        needed = 1 + 2 * beyond.clamp(min=0).amax(dim=1)
        rows.append(
            {
                "region": name,
                "n": len(rois),
                "iou": _mean(paired_iou(rois, objects)),
                "coverage": [_coverage(rois, objects, ratio) for ratio in ratios],
                "outside": [_mean(side) for side in (beyond > 0).float().unbind(dim=1)],
                "needed_ratio": {
                    f"p{percent}": float(needed.quantile(percent / 100)) if len(needed) else None
                    for percent in (50, 90, 99)
                },
            }
        )
    return rows


def misalignment(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    ratios: Sequence[float] = (1.0, 1.25, 1.5, 2.0),
    min_iou: float = 0.5,
) -> dict[str, Any]:
    """Both misalignments of Fig. 1 in numbers.

    Args:
        detections: with `proposals` and the single scores.
        ratios: mapping ratios whose reach is measured.
        min_iou: proposals below this IoU are left out of the first part, boxes below it of the second.

    Returns:
        ``n`` proposals; ``coverage``, per ratio a dict of "ratio" and the mean shares "points", "borders",
        "all_borders" (0..1; None without a proposal) of the ground truth inside the extended proposal;
        ``correlation`` {score: {"pearson", "spearman"}} with the true IoU of the final box.
    """
    entering = match(detections, ground_truth, boxes="proposals")
    entering = entering.select(entering.ious >= min_iou)
    final = match(detections, ground_truth)
    correlations = {}
    for name, scores in score_columns(detections).items():
        kept = final.ious >= min_iou
        full = score_correlation(scores[kept], final.ious[kept])
        correlations[name] = {key: full[key] for key in ("pearson", "spearman")}
    return {
        "n": len(entering),
        "coverage": [_coverage(entering.boxes, entering.gt_boxes, ratio) for ratio in ratios],
        "correlation": correlations,
    }


def _coverage(rois: Tensor, gt: Tensor, ratio: float) -> dict[str, float | None]:
    inside = coverage(rois, gt, ratio)
    return {
        "ratio": ratio,
        "points": _mean(inside.points),
        "borders": _mean(inside.borders),
        "all_borders": _mean((inside.borders == 1).float()),
    }


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None
