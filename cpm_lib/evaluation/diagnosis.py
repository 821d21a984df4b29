"""The two misalignments of Fig. 1, measured: RoI against ground truth, and score against true IoU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.ops import box_iou

from cpm_lib.boxes import extend_regions
from cpm_lib.errors import UserError
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth

PARTS = ("cls_scores", "iou_scores", "rsm_scores", "scores")


@dataclass(frozen=True)
class Matches:
    """Every detection of a data set with the object of its class that it overlaps most.

    Attributes:
        image_ids: [N] image of each detection.
        rows: [N] its position within that image's detections.
        boxes, gt_boxes: [N,4] xyxy in pixels; `gt_boxes` is NaN where the image has no object of the class.
        scores: [N]; labels: [N].
        ious: [N] true IoU in 0..1; 0 where there is no object of the class.
        gt_index: [N] position in the ground truth's `annotations`; -1 where there is none.
    """

    image_ids: Tensor
    rows: Tensor
    boxes: Tensor
    gt_boxes: Tensor
    scores: Tensor
    labels: Tensor
    ious: Tensor
    gt_index: Tensor

    def __len__(self) -> int:
        return len(self.ious)

    def select(self, mask: Tensor) -> Matches:
        """The detections where `mask` [N] holds."""
        return Matches(**{name: getattr(self, name)[mask] for name in self.__dataclass_fields__})


def match(detections: Sequence[Detection], ground_truth: Any, *, boxes: str = "boxes") -> Matches:
    """Best IoU of every detection with an object of its class; crowds are left out.

    Several detections may share an object: this measures how well a box fits, not what AP counts.

    Args:
        detections: as for `evaluate`.
        ground_truth: COCO dict, path or `DetectionDataset`.
        boxes: which boxes to measure, e.g. "proposals" for what entered the first stage.
    """
    truth = GroundTruth.of(ground_truth)
    by_image: dict[int, list[int]] = {}
    for index, annotation in enumerate(truth.annotations):
        if not annotation.get("iscrowd", 0):
            by_image.setdefault(annotation["image_id"], []).append(index)
    parts: list[tuple[Tensor, ...]] = []
    for image_id, detection in truth.assign_images(detections):
        indices = by_image.get(image_id, [])
        found = torch.as_tensor(detection[boxes]).detach().cpu().float().reshape(-1, 4)
        labels = torch.as_tensor(detection["labels"]).cpu().reshape(-1)
        xywh = torch.tensor([truth.annotations[i]["bbox"] for i in indices], dtype=torch.float64).reshape(-1, 4)
        # A last row stands for "no object", so that images and classes without objects need no branch.
        objects = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1).float()
        objects = torch.cat([objects, torch.full((1, 4), torch.nan)])
        categories = torch.tensor([truth.annotations[i]["category_id"] for i in indices] + [-1])
        wanted = torch.tensor([truth.category(int(label), image_id) for label in labels], dtype=torch.int64)
        overlap = box_iou(found, objects).nan_to_num(0.0)
        overlap = torch.where(wanted[:, None] == categories[None, :], overlap, -1.0)
        overlap[:, -1] = -0.5
        best, place = overlap.max(dim=1)
        parts.append(
            (
                torch.full((len(found),), image_id),
                torch.arange(len(found)),
                found,
                objects[place],
                torch.as_tensor(detection["scores"]).detach().cpu().float().reshape(-1),
                labels,
                best.clamp(min=0.0),
                torch.tensor([*indices, -1])[place],
            )
        )
    if not parts:
        none, integers, four = torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
        parts = [(integers, integers, four, four, none, integers, none, integers)]
    return Matches(*(torch.cat(column) for column in zip(*parts, strict=True)))


def score_correlation(scores: Tensor, ious: Tensor, bins: int = 10) -> dict[str, float | int | None]:
    """How well a score knows the quality of its box.

    Args:
        scores, ious: [N] each, 0..1.
        bins: equal score intervals over 0..1 for the calibration error.

    Returns:
        pearson and spearman in -1..1 (None if undefined: fewer than 2 values, or one side constant);
        calibration_error: mean over detections of |mean score - mean IoU| of their score bin; n.
    """
    x, y = scores.detach().double().reshape(-1), ious.detach().double().reshape(-1)
    bin_of = (x * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, x - y)
    return {
        "pearson": _pearson(x, y),
        "spearman": _pearson(_ranks(x), _ranks(y)),
        "calibration_error": float(gap.abs().sum() / len(x)) if len(x) else None,
        "n": len(x),
    }


def _pearson(x: Tensor, y: Tensor) -> float | None:
    if len(x) < 2 or bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return None
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double() - 1
    return (last - (counts.double() - 1) / 2)[inverse]


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


def score_by_truncation(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    by: Literal["truncation", "occlusion", "either"] = "either",
    min_iou: float = 0.8,
    edges: Sequence[float] = (0.0, 0.1, 0.3, 1.0),
) -> list[dict[str, float | int | None]]:
    """Mean scores of well placed detections, grouped by how much of the object is missing (Sec. 3.3.2, Fig. 6).

    Args:
        detections: as for `evaluate`; parts (`cls_scores`, `iou_scores`, `rsm_scores`) are averaged where present.
        ground_truth: its annotations carry `truncation` and `occlusion`, shares in 0..1 of the full object.
        by: which share groups; "either" takes the larger one.
        min_iou: only detections whose true IoU is above it, so that groups differ in completeness, not in fit.
        edges: group limits; the first group holds complete objects (share <= edges[0]), the others (low, high].

    Returns:
        One dict per group: low, high, n, iou (mean true IoU) and the mean of each score present; None where n = 0.

    Raises:
        UserError: the annotations carry no such share.
    """
    truth = GroundTruth.of(ground_truth)
    matches = match(detections, truth)
    matches_good = (matches.ious > min_iou) & (matches.gt_index >= 0)
    keys = ("truncation", "occlusion") if by == "either" else (by,)
    missing = [key for key in keys if any(key not in annotation for annotation in truth.annotations)]
    if missing:
        raise UserError(f"ground truth: annotations without '{missing[0]}'; use data that records it, such as shapes:")
    shares = torch.tensor([max(float(a[key]) for key in keys) for a in truth.annotations] + [0.0])
    share = shares[matches.gt_index]
    columns = {"iou": matches.ious}
    for part in PARTS:
        if detections and all(part in detection for detection in detections):
            # `match` keeps the order of the detections, so the concatenated parts line up with it.
            columns[part] = torch.cat([torch.as_tensor(detection[part]).cpu().float() for detection in detections])
    limits = [(-1.0, edges[0]), *itertools.pairwise(edges)]
    groups: list[dict[str, float | int | None]] = []
    for low, high in limits:
        chosen = matches_good & (share > low) & (share <= high)
        n = int(chosen.sum())
        means = {name: float(values[chosen].mean()) if n else None for name, values in columns.items()}
        groups.append({"low": max(low, 0.0), "high": high, "n": n, **means})
    return groups


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
    shares = []
    for ratio in ratios:
        inside = coverage(entering.boxes, entering.gt_boxes, ratio)
        shares.append(
            {
                "ratio": ratio,
                "points": _mean(inside.points),
                "borders": _mean(inside.borders),
                "all_borders": _mean((inside.borders == 1).float()),
            }
        )
    correlations = {}
    for name in PARTS:
        if all(name in detection for detection in detections):
            scored = [{**detection, "scores": detection[name]} for detection in detections]
            final = match(scored, ground_truth)
            final = final.select(final.ious >= min_iou)
            full = score_correlation(final.scores, final.ious)
            correlations[name] = {key: full[key] for key in ("pearson", "spearman")}
    return {"n": len(entering), "coverage": shares, "correlation": correlations}


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None
