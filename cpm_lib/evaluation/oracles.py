"""Upper limits: AP if one thing about the detections were perfect."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpm_lib.evaluation.average_precision import Judged, average_precision, judge
from cpm_lib.evaluation.coco import IOU_THRESHOLDS, threshold_index
from cpm_lib.evaluation.error_bins import BACKGROUND, Nearest, nearest
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.evaluation.matching import object_boxes

SINGLE = (50, 75, 90)
"""IoU thresholds in per cent whose AP stands beside the mean."""


def oracles(detections: Sequence[Detection], ground_truth: Any) -> dict[str, dict[str, float | None]]:
    """AP of the detections, and what it would be if one thing about them were perfect.

    - plain: as they are.
    - true_iou: the score is the true IoU of the final box with the object of its class that it overlaps most, what
      a perfect ISM alone would say. Duplicates keep their IoU, too, and may outrank better found objects: this
      can lie below "plain".
    - cls_true_iou: the classification score times this IoU, a perfect ISM in Eq. 4; only where there are
      `cls_scores`.
    - hits_first: every hit is ranked before every false positive, separately at each IoU threshold: what is left
      to gain by scores. Equal to "true_iou" where no object is detected twice and no object overlaps another of
      its class by half.
    - true_boxes: every box is that of its object: the one it finds at IoU 0.5, else the one of its class that it
      overlaps most, by 0.1 at least. What is left to gain by localisation.
    - no_duplicates: no false positive overlaps an object of its class by the IoU threshold, separately at each.

    "hits_first", "true_boxes" and "no_duplicates" never lie below "plain". If misses vanished: `error_bins`.

    Args:
        detections, ground_truth: as for `evaluate`.

    Returns:
        per oracle AP, AP50, AP75 and AP90 in 0..100; None without an object.
    """
    truth = GroundTruth.of(ground_truth)
    judged, near = judge(detections, truth), nearest(detections, truth)
    limits = torch.from_numpy(IOU_THRESHOLDS)[:, None]
    states = {"plain": judged, "true_iou": judge(_replaced(detections, "scores", near.own_iou), truth)}
    if all("cls_scores" in detection for detection in detections):
        scores = [torch.as_tensor(detection["cls_scores"]).double().reshape(-1) for detection in detections]
        product = torch.cat([torch.zeros(0), *scores]) * near.own_iou
        states["cls_true_iou"] = judge(_replaced(detections, "scores", product), truth)
    states["hits_first"] = _without(judged, judged.false)
    states["true_boxes"] = judge(_replaced(detections, "boxes", _true_boxes(detections, truth, judged, near)), truth)
    states["no_duplicates"] = _without(judged, judged.false & (near.own_iou >= limits))
    return {name: _metrics(state) for name, state in states.items()}


def _true_boxes(detections: Sequence[Detection], truth: GroundTruth, judged: Judged, near: Nearest) -> Tensor:
    """[N,4] boxes of the objects; crowds' detections and background stay where they are."""
    boxes = [torch.as_tensor(detection["boxes"]).double().reshape(-1, 4) for detection in detections]
    hit, false = judged.hit[0], judged.false[0] & (near.own_iou >= BACKGROUND)
    place = torch.where(hit, judged.found[0], near.own)
    known = torch.cat([object_boxes(truth), torch.zeros(1, 4, dtype=torch.float64)])
    return torch.where((hit | false)[:, None], known[place], torch.cat([torch.zeros(0, 4), *boxes]))


def _replaced(detections: Sequence[Detection], key: str, values: Tensor) -> list[Detection]:
    counts = [len(torch.as_tensor(detection["labels"]).reshape(-1)) for detection in detections]
    return [{**detection, key: part} for detection, part in zip(detections, values.split(counts), strict=True)]


def _without(judged: Judged, removed: Tensor) -> Judged:
    return dataclasses.replace(judged, ignored=judged.ignored | removed)


def _metrics(judged: Judged) -> dict[str, float | None]:
    values = average_precision(judged)
    defined = [value for value in values if value is not None]
    single = {f"AP{percent}": values[threshold_index(percent)] for percent in SINGLE}
    return {"AP": sum(defined) / len(defined) if defined else None, **single}
