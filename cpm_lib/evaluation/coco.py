"""COCO metrics through pycocotools, and every score row of one inference."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools.cocoeval import COCOeval

from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.model.fused_score import fuse

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)
METRICS = ("AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "APS", "APM", "APL", "AR100")
HEADLINE = ("AP", "AP50", "AP75", "AP90", "APS", "APM", "APL")
"""Those that tables print."""
SCORES = ("cls", "cls_ism", "cls_rsm", "fused")
ALL_AREAS = (0.0, 1e10)


def evaluate(
    detections: Sequence[Detection],
    coco_json_or_dataset: Any,
    area_limits: Sequence[float] | None = None,
    *,
    curves: bool = False,
) -> dict[str, Any]:
    """COCO metrics in 0..100; a metric without any object to find is None.

    Args:
        detections: one dict per image with `boxes` [N,4] xyxy in pixels, `scores` [N], `labels` [N] and, if they
            are not in the order of the data, `image_id`. Images without detections may be left out.
        coco_json_or_dataset: COCO dict, path of a COCO JSON file, or `DetectionDataset`.
        area_limits: side lengths in pixels that part small, medium and large; default: those of the data set, else
            COCO's (32, 96). As in pycocotools, an object exactly on a limit counts on both sides.
        curves: adds AP over IoU thresholds (Fig. 8a), as a whole and by object size (Fig. 8b), from the same matching.

    Returns:
        AP, AP50, AP60, AP70, AP75, AP80, AP90, APS, APM, APL, AR100, and `per_class`: {class name: AP}.
        With `curves` also `curves`: "iou", the thresholds 0.5, 0.55, ..., 0.95, and in their order the AP of "all",
        "small", "medium" and "large" objects, whose means are AP, APS, APM and APL.

    Raises:
        UserError: unreadable ground truth; unknown image or label; a value that is not finite.
    """
    truth = GroundTruth.of(coco_json_or_dataset, area_limits)
    areas = list(area_ranges(area_limits or truth.area_limits).values())
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = evaluator_for(detections, truth, areas, MAX_DETECTIONS)
        evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]  # [T,R,K,A,M], [T,K,A,M]
    metrics: dict[str, Any] = {"AP": _mean(precision[:, :, :, 0, -1])}
    for percent in (50, 60, 70, 75, 80, 90):
        metrics[f"AP{percent}"] = _mean(precision[threshold_index(percent), :, :, 0, -1])
    for position, name in enumerate(("APS", "APM", "APL"), start=1):
        metrics[name] = _mean(precision[:, :, :, position, -1])
    metrics["AR100"] = _mean(recall[:, :, 0, -1])
    metrics["per_class"] = {
        truth.names[category]: _mean(precision[:, :, k, 0, -1]) for k, category in enumerate(evaluator.params.catIds)
    }
    if curves:
        metrics["curves"] = {
            "iou": IOU_THRESHOLDS.round(2).tolist(),
            **{
                size: [_mean(values) for values in precision[:, :, :, position, -1]]
                for position, size in enumerate(("all", "small", "medium", "large"))
            },
        }
    return metrics


def area_ranges(area_limits: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Areas in square pixels that AP, APS, APM and APL speak of, from the two limits as side lengths."""
    small, large = (limit**2 for limit in area_limits)
    return {"AP": ALL_AREAS, "APS": (0.0, small), "APM": (small, large), "APL": (large, ALL_AREAS[1])}


def evaluator_for(
    detections: Sequence[Detection],
    truth: GroundTruth,
    areas: Sequence[tuple[float, float]],
    max_detections: Sequence[int],
    thresholds: np.ndarray = IOU_THRESHOLDS,
) -> COCOeval:
    """A pycocotools evaluator whose matching at IoU `thresholds` is done (`evalImgs`), silent on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth.to_coco(), truth.results(detections), "bbox")
        evaluator.params.iouThrs = thresholds
        evaluator.params.areaRng = [list(area) for area in areas]
        evaluator.params.areaRngLbl = ["all", "small", "medium", "large"][: len(areas)]
        evaluator.params.maxDets = list(max_detections)
        evaluator.evaluate()
    return evaluator


def threshold_index(percent: int) -> int:
    """Position of an IoU threshold in `IOU_THRESHOLDS`: 50 -> 0, 55 -> 1, ..., 95 -> 9."""
    return round((percent - 50) / 5)


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else None


def rescore(detections: Sequence[Detection], score: str, gamma: float, *, clamp: bool = True) -> list[Detection]:
    """The final boxes with another score: `cls`, `cls_ism`, `cls_rsm` or `fused` (Eq. 4 with this gamma).

    Args:
        detections: with `cls_scores`, and `iou_scores` and `rsm_scores` as far as `score` needs them.
        clamp: clamp the IoU score to [0, 1] first (the authors' code does not).
    """
    use_iou, use_rsm = score in ("cls_ism", "fused"), score in ("cls_rsm", "fused")
    return [
        _row(
            detection,
            detection["boxes"],
            fuse(
                detection["cls_scores"],
                detection["iou_scores"] if use_iou else None,
                detection["rsm_scores"] if use_rsm else None,
                gamma,
                clamp=clamp,
            ),
        )
        for detection in detections
    ]


def rows(
    detections: Sequence[Detection], gamma: float, *, clamp: bool = True
) -> list[tuple[int, str, list[Detection]]]:
    """Every table row that one inference holds: (stage, score, detections), stages 1-based.

    Earlier stages carry the classification score. The last stage carries `cls`, `cls_ism` where there is an ISM,
    `cls_rsm` where there is an RSM, and `fused` where there are both. Detections without parts (Faster R-CNN)
    give the single row (1, "cls").
    """
    first: Detection = detections[0] if detections else {}
    if "cls_scores" not in first:
        return [(1, "cls", [_row(detection, detection["boxes"], detection["scores"]) for detection in detections])]
    stages = first["stage_boxes"].shape[1] if "stage_boxes" in first else 1
    result: list[tuple[int, str, list[Detection]]] = []
    for stage in range(1, stages):
        result.append((stage, "cls", [_row(d, d["stage_boxes"][:, stage - 1], d["cls_scores"]) for d in detections]))
    present = {"cls": True, "cls_ism": "iou_scores" in first, "cls_rsm": "rsm_scores" in first}
    present["fused"] = present["cls_ism"] and present["cls_rsm"]
    for score in SCORES:
        if present[score]:
            result.append((stages, score, rescore(detections, score, gamma, clamp=clamp)))
    return result


def _row(detection: Detection, boxes: torch.Tensor, scores: torch.Tensor) -> Detection:
    row: Detection = {"boxes": boxes, "scores": scores, "labels": detection["labels"]}
    if "image_id" in detection:
        row["image_id"] = detection["image_id"]
    return row
