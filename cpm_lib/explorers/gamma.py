"""Gamma: how the fused score ranks detections, and what AP makes of it (Eq. 4, Fig. 7)."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pycocotools import mask
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from cpm_lib import figures
from cpm_lib.data import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.evaluation import GroundTruth, match, score_columns
from cpm_lib.evaluation.average_precision import average_precision, judge
from cpm_lib.evaluation.coco import ALL_AREAS, IOU_THRESHOLDS
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.explorers.component import Explorer, photo, plain
from cpm_lib.model.fused_score import fuse

_PARTS = ("cls_scores", "iou_scores", "rsm_scores")
_STILL = (0.0, 0.4, 0.8, 1.0)


def gamma(
    detections: Sequence[Detection],
    dataset: DetectionDataset,
    *,
    start: float = 0.8,
    image_id: int | None = None,
    listed: int = 6,
    most: int = 16_000,
) -> Explorer:
    """Move gamma: the detections of an image change their order, and COCO's AP of all images is computed anew.

    The page holds the scores of every detection, and its IoU where it is at least 0.5 with an object of its class.

    Args:
        detections: of a detector with an RSM, as `evaluation.predict` returns them; IoU scores count as clamped to
            0..1. Without an ISM the fused score has no such factor.
        dataset: the images they are of.
        start: gamma at the start.
        image_id: whose detections are listed; default: where gamma changes the order most.
        listed: how many of them, by the fused score at gamma 0.5.
        most: detections that the page holds; beyond that a fixed random choice of the images is judged.

    Raises:
        UserError: the detections have no RSM score, or there is no object to find; and those of `evaluate`.
    """
    truth = GroundTruth.of(dataset)
    if not detections:
        raise UserError("no detections; give one dict per image, as evaluation.predict returns them")
    by_image = {image: {**found, "image_id": image} for image, found in truth.assign_images(detections)}
    for image, found in by_image.items():
        if "cls_scores" not in found or "rsm_scores" not in found:
            raise UserError(f"detections of image {image}: no RSM score, so gamma has nothing to weigh; use preset cpm")
    shown = _most_changed(by_image, truth, listed) if image_id is None else image_id
    if shown not in by_image:
        raise UserError(f"image {shown} has no detections; give the id of an image that has")
    images = _chosen_images(truth, by_image, shown, most)
    inside = set(images)
    truth = replace(truth, image_ids=images, annotations=[a for a in truth.annotations if a["image_id"] in inside])
    if all(annotation.get("iscrowd") for annotation in truth.annotations):
        raise UserError(f"{dataset.name}: no object on the {len(images)} images judged, so AP is undefined")
    kept = [by_image[image] for image in images if image in by_image]
    rows, judged = _arrays(kept, truth)
    return Explorer(
        "gamma",
        "Which gamma ranks best?",
        "AP over gamma: a hill, above the dashed line of the classification score alone. With scripts gamma can be "
        "moved, and the order of detections and the precision-recall curve follow.",
        {
            **judged,
            "start": start,
            "images": [len(images), len(dataset)],
            "thresholds": IOU_THRESHOLDS.round(2).tolist(),
            **_listed_image(by_image[shown], dataset, rows, truth, listed),
        },
        _still(kept, truth),
    )


def _fused(found: Detection, value: float) -> Tensor:
    return fuse(found["cls_scores"], found.get("iou_scores"), found["rsm_scores"], value)


def _most_changed(by_image: dict[int, Detection], truth: GroundTruth, listed: int) -> int:
    """The image whose best detections swap most pairs, on the way from gamma 0 to 0.8 and from there to 1; rather
    one where they find something, and miss."""
    ious = match(list(by_image.values()), truth).ious.split([len(found["labels"]) for found in by_image.values()])
    best, most = next(iter(by_image)), (False, 0)
    for (image, found), fit in zip(by_image.items(), ious, strict=True):
        top = _fused(found, 0.5).argsort(descending=True)[:listed]
        low, middle, high = (_fused(found, value)[top] for value in (0.0, 0.8, 1.0))
        hits = int((fit[top] >= 0.5).sum())
        changed = (len(top) // 2 <= hits < len(top), (1 + _inversions(low, middle)) * (1 + _inversions(middle, high)))
        if changed > most:
            best, most = image, changed
    return best


def _inversions(first: Tensor, second: Tensor) -> int:
    return int(((first[:, None] > first) & (second[:, None] < second)).sum())


def _chosen_images(truth: GroundTruth, by_image: dict[int, Detection], shown: int, most: int) -> list[int]:
    """Ids of the images to judge, sorted as pycocotools does: all, or a fixed random choice with the shown one."""
    shuffled = torch.randperm(len(truth.image_ids), generator=torch.Generator().manual_seed(0)).tolist()
    order = [shown, *(image for image in (truth.image_ids[place] for place in shuffled) if image != shown)]
    counts = np.cumsum([len(by_image[image]["labels"]) if image in by_image else 0 for image in order])
    return sorted(order[: max(1, int((counts <= most).sum()))])


def _arrays(kept: Sequence[Detection], truth: GroundTruth) -> tuple[dict[tuple[int, int], int], dict[str, Any]]:
    """What the page needs for COCO's matching, class by class and within a class image by image.

    Returns:
        (image id, position among its detections) -> row of the arrays; and the arrays, packed.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells what it does
        annotations = _grouped(truth.to_coco().dataset["annotations"])
        results = truth.results(kept).dataset["annotations"]
    groups = _grouped(results)
    order: list[int] = []
    sizes: list[int] = []
    classes: list[list[int]] = []
    crowd: list[int] = []
    pairs: list[tuple[int, int, int, float]] = []
    for category in sorted(truth.names):
        before, counted = len(sizes), 0
        for image in truth.image_ids:
            # As pycocotools orders them: crowds last, else as in the file.
            objects = sorted(annotations.get((image, category), []), key=lambda each: int(each["iscrowd"]))
            mine = groups.get((image, category), [])
            counted += sum(not each["iscrowd"] for each in objects)
            if mine and objects:
                crowds = [each["iscrowd"] for each in objects]
                ious = np.asarray(mask.iou([each["bbox"] for each in mine], [each["bbox"] for each in objects], crowds))
                levels = (ious[..., None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)).sum(axis=-1)
                for d, g in np.argwhere(levels > 0).tolist():
                    pairs.append((len(order) + d, len(crowd) + g, int(levels[d, g]), float(ious[d, g])))
                crowd += crowds
            if mine:
                # Results are numbered from 1, in their order.
                order += [each["id"] - 1 for each in mine]
                sizes.append(len(mine))
        classes.append([len(sizes) - before, counted])
    columns = score_columns(kept)
    parts = [columns[name].nan_to_num(0.0)[order].clamp(0, 1) if name in columns else None for name in _PARTS]
    places = [(found["image_id"], row) for found in kept for row in range(len(found["labels"]))]
    index = "<u2" if max(len(order), len(crowd)) <= 2**16 else "<u4"
    return {places[result]: row for row, result in enumerate(order)}, {
        "parts": [None if part is None else packed_shares(part.numpy()) for part in parts],
        "sizes": packed(sizes, "<u2"),
        "classes": classes,
        "crowd": [number for number, is_crowd in enumerate(crowd) if is_crowd],
        "objects": len(crowd),
        "inverted": [row for row, result in enumerate(order) if not 0 <= results[result]["area"] <= ALL_AREAS[1]],
        "pairs": [packed([pair[k] for pair in pairs], kind) for k, kind in enumerate((index, index, "<u1", "<f4"))],
    }


def _grouped(annotations: Sequence[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for annotation in annotations:
        groups.setdefault((annotation["image_id"], annotation["category_id"]), []).append(annotation)
    return groups


def packed(values: Any, kind: str) -> str:
    """Numbers as the text of a typed array, e.g. ``<f4``: little-endian floats of 32 bits."""
    return base64.b64encode(np.asarray(values, dtype=kind).tobytes()).decode()


def packed_shares(values: Any) -> str:
    """Numbers in 0..1 as text, three bytes each: whole multiples of 1 / (2^24 - 1), little-endian."""
    whole = np.rint(np.asarray(values, dtype=np.float64) * (2**24 - 1)).astype("<u4")
    return base64.b64encode(whole[:, None].view(np.uint8)[:, :3].tobytes()).decode()


def _listed_image(
    found: Detection, dataset: DetectionDataset, rows: dict[tuple[int, int], int], truth: GroundTruth, listed: int
) -> dict[str, Any]:
    """Picture, objects and best detections of one image, the detections with their row in the arrays."""
    image_id = found["image_id"]
    image, target = dataset[dataset.image_ids.index(image_id)]
    top = _fused(found, 0.5).argsort(descending=True, stable=True)[:listed]
    ious = match([found], replace(truth, image_ids=[image_id])).ious
    names = {label: truth.names[category] for label, category in truth.label_to_category.items()}
    return {
        "image": photo(_small(image)),
        "size": [image.shape[-1], image.shape[-2]],
        "objects_shown": plain(target["boxes"]),
        "listed": [
            {
                "row": rows[image_id, place],
                "class": names[int(found["labels"][place])],
                "box": plain(torch.as_tensor(found["boxes"][place])),
                "iou": round(float(ious[place]), 4),
            }
            for place in top.tolist()
        ],
    }


def _small(image: Tensor, longest: int = 320) -> Tensor:
    """Photographs would make pages heavy; the list shows crops the size of a thumbnail."""
    factor = longest / max(image.shape[-2:])
    sides = [max(1, round(side * factor)) for side in image.shape[-2:]]
    return vision.resize(image, sides, antialias=True) if factor < 1 else image


def _still(kept: Sequence[Detection], truth: GroundTruth) -> Figure:
    curve = [_ap(kept, truth, [_fused(found, value) for found in kept]) for value in _STILL]
    return figures.gamma_curve(_STILL, curve, _ap(kept, truth, [found["cls_scores"] for found in kept]))


def _ap(kept: Sequence[Detection], truth: GroundTruth, scores: Sequence[Tensor]) -> float:
    """AP of other scores; 0 where there is no object to find."""
    rows = [{**found, "scores": given} for found, given in zip(kept, scores, strict=True)]
    return float(np.mean([value or 0.0 for value in average_precision(judge(rows, truth))]))
