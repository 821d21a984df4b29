"""How well the proposals cover the objects, by size (Sec. 3.3.2, Sec. 4.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpm_lib import boxes as box_ops
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.evaluation.matching import object_boxes, overlaps, paired_intersection


def proposal_quality(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    boxes: str = "proposals",
    thresholds: Sequence[float] = (0.5, 0.7, 0.9),
    min_iou: float = 0.5,
    mapping_ratio: float = 1.0,
    area_limits: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """What the proposals leave for the second stage, by object size (Sec. 4.2.2: limited by the RPN).

    Every object is measured with the proposal of its image that overlaps it most, whatever its class.
    `predict` reports the proposals of the detections, those that passed the classification branch; other boxes,
    such as all proposals of the RPN, need only `boxes` and `image_id`. Crowds are left out.

    Args:
        detections: one dict per image with the boxes [N,4]; an image left out has none.
        boxes: which boxes to measure.
        thresholds: IoUs at which an object counts as found.
        min_iou: least IoU of the proposals that "cut" and "cut_objects" speak of.
        mapping_ratio: extends the proposals for these two; 2 is what the first heatmap shows.
        area_limits: as in `evaluate`; an object exactly on a limit counts on both sides, as in pycocotools.

    Returns:
        One dict each for size "all", "small", "medium" and "large": objects; iou, the mean best IoU (0 for an
        object without proposal); recall, the share of objects found at each threshold; found, the number of
        objects with a proposal of `min_iou`, and of these "cut", the mean share of the object's box outside its
        proposal, and "cut_objects", the share of objects that reach beyond it at all. Shares are 0..1, None
        without an object.
    """
    objects = object_quality(
        detections, ground_truth, boxes=boxes, min_iou=min_iou, mapping_ratio=mapping_ratio, area_limits=area_limits
    )
    rows = []
    for size, chosen in objects.sizes.items():
        found = chosen & objects.found
        rows.append(
            {
                "size": size,
                "objects": int(chosen.sum()),
                "iou": _mean(objects.iou[chosen]),
                "recall": [_mean((objects.iou[chosen] >= threshold).double()) for threshold in thresholds],
                "found": int(found.sum()),
                "cut": _mean(objects.cut[found]),
                "cut_objects": _mean(objects.beyond[found].double()),
            }
        )
    return rows


@dataclass(frozen=True)
class ObjectQuality:
    """Every annotation with the proposal of its image that overlaps it most, [A] each.

    Attributes:
        image: position in the ground truth's `image_ids`; -1 for annotations of other images.
        iou: with that proposal, 0 without one.
        found: a proposal reaches the least IoU, so that "cut" and "beyond" speak of it.
        cut: share 0..1 of the object's box outside the extended proposal; beyond: it reaches out of it at all.
        sizes: masks of "all", "small", "medium" and "large" objects; crowds are in none.
    """

    image: Tensor
    iou: Tensor
    found: Tensor
    cut: Tensor
    beyond: Tensor
    sizes: dict[str, Tensor]


def object_quality(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    boxes: str = "proposals",
    min_iou: float = 0.5,
    mapping_ratio: float = 1.0,
    area_limits: Sequence[float] | None = None,
) -> ObjectQuality:
    """What `proposal_quality` takes its means of."""
    truth = GroundTruth.of(ground_truth, area_limits)
    small, large = (float(limit) ** 2 for limit in (area_limits or truth.area_limits))
    objects = object_boxes(truth)
    iou = torch.zeros(len(objects), dtype=torch.float64)
    covering = torch.full_like(objects, torch.nan)
    for image in overlaps(detections, truth, boxes):
        if image.ious.numel():
            iou[image.indices], place = image.ious.max(dim=0)
            covering[image.indices] = image.boxes[place]
    extended = box_ops.extend_regions(covering, mapping_ratio)
    extent = box_ops.area(objects)
    cut = 1 - paired_intersection(objects, extended) / extent
    beyond = torch.cat([objects[:, :2] < extended[:, :2], objects[:, 2:] > extended[:, 2:]], dim=1).any(dim=1)
    places = {image_id: number for number, image_id in enumerate(truth.image_ids)}
    position = torch.tensor([places.get(a["image_id"], -1) for a in truth.annotations], dtype=torch.int64)
    crowd = torch.tensor([bool(a.get("iscrowd", 0)) for a in truth.annotations], dtype=torch.bool)
    counted = (position >= 0) & ~crowd
    own = [a.get("area", size) for a, size in zip(truth.annotations, extent.tolist(), strict=True)]
    area = torch.tensor(own, dtype=torch.float64)
    sizes = {
        "all": counted,
        "small": counted & (area <= small),
        "medium": counted & (area >= small) & (area <= large),
        "large": counted & (area >= large),
    }
    found = counted & (iou >= min_iou) & (extent > 0) & covering.isfinite().all(dim=1)
    return ObjectQuality(position, iou, found, cut, beyond, sizes)


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
