"""Detections beside the objects they overlap, and the columns that a diagnosis reads from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from cpm_lib import boxes as box_ops
from cpm_lib.errors import UserError
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.model.fused_score import fuse

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


@dataclass(frozen=True)
class Overlaps:
    """The boxes of one image against its objects; crowds are left out.

    Attributes:
        image_id, detection: as given.
        boxes: [D,4] xyxy in pixels, float64.
        indices: [G] positions in the ground truth's `annotations`; categories: [G].
        ious: [D,G] in 0..1, float64.
    """

    image_id: int
    detection: Detection
    boxes: Tensor
    indices: Tensor
    categories: Tensor
    ious: Tensor

    def own_class(self, truth: GroundTruth) -> Tensor:
        """[D,G] bool: the object is of the class that the detection names."""
        labels = torch.as_tensor(self.detection["labels"]).reshape(-1).tolist()
        wanted = torch.tensor([truth.category(int(label), self.image_id) for label in labels], dtype=torch.int64)
        return wanted[:, None] == self.categories[None, :]

    def best(self, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Largest IoU [D] among the objects that `allowed` [D,G] admits and that object's index [D]; 0 and -1
        where it admits none."""
        # A last column stands for "no object", so that images and classes without objects need no branch.
        none = torch.full((len(self.ious), 1), -0.5, dtype=self.ious.dtype)
        iou, place = torch.cat([torch.where(allowed, self.ious, -1.0), none], dim=1).max(dim=1)
        return iou.clamp(min=0.0), torch.cat([self.indices, self.indices.new_tensor([-1])])[place]


def overlaps(detections: Sequence[Detection], truth: GroundTruth, boxes: str = "boxes") -> Iterator[Overlaps]:
    """IoU of every box with every object of its image, image by image; `boxes` names the key to read."""
    objects = object_boxes(truth)
    categories = torch.tensor([a["category_id"] for a in truth.annotations], dtype=torch.int64)
    by_image: dict[int, list[int]] = {}
    for index, annotation in enumerate(truth.annotations):
        if not annotation.get("iscrowd", 0):
            by_image.setdefault(annotation["image_id"], []).append(index)
    for image_id, detection in truth.assign_images(detections):
        if boxes not in detection:
            raise UserError(f"detections of image {image_id}: no '{boxes}'; use a detector that reports them")
        indices = torch.tensor(by_image.get(image_id, []), dtype=torch.int64)
        found = torch.as_tensor(detection[boxes]).detach().cpu().double().reshape(-1, 4)
        ious = box_iou(found, objects[indices]).nan_to_num(0.0)
        yield Overlaps(image_id, detection, found, indices, categories[indices], ious)


def object_boxes(truth: GroundTruth, key: str = "bbox") -> Tensor:
    """[A,4] boxes of all annotations, xyxy in pixels, float64."""
    xywh = torch.tensor([annotation[key] for annotation in truth.annotations], dtype=torch.float64)
    return box_convert(xywh.reshape(-1, 4), "xywh", "xyxy")


def match(detections: Sequence[Detection], ground_truth: Any, *, boxes: str = "boxes") -> Matches:
    """Best IoU of every detection with an object of its class; crowds are left out.

    Several detections may share an object: this measures how well a box fits, not what AP counts.

    Args:
        detections: as for `evaluate`.
        ground_truth: COCO dict, path or `DetectionDataset`.
        boxes: which boxes to measure, e.g. "proposals" for what entered the first stage.
    """
    truth = GroundTruth.of(ground_truth)
    objects = torch.cat([object_boxes(truth), torch.full((1, 4), torch.nan)]).float()
    none, integers, four = torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
    parts: list[tuple[Tensor, ...]] = [(integers, integers, four, four, none, integers, none, integers)]
    for image in overlaps(detections, truth, boxes):
        ious, index = image.best(image.own_class(truth))
        parts.append(
            (
                torch.full((len(ious),), image.image_id),
                torch.arange(len(ious)),
                image.boxes.float(),
                objects[index],
                torch.as_tensor(image.detection["scores"]).detach().cpu().float().reshape(-1),
                torch.as_tensor(image.detection["labels"]).cpu().reshape(-1),
                ious.float(),
                index,
            )
        )
    return Matches(*(torch.cat(column) for column in zip(*parts, strict=True)))


def score_columns(detections: Sequence[Detection], gamma: float | None = None) -> dict[str, Tensor]:
    """Every score that all detections carry, [N] each, in the order of `match`.

    Args:
        gamma: adds `cls_ism`, `cls_rsm` and `fused` (Eq. 4), IoU scores clamped to 0..1, where their parts are.
    """
    present = [name for name in PARTS if all(name in detection for detection in detections)]
    columns = {name: _column(detections, name) for name in present}
    if gamma is not None and "cls_scores" in columns:
        cls, iou, rsm = columns["cls_scores"], columns.get("iou_scores"), columns.get("rsm_scores")
        if iou is not None:
            columns["cls_ism"] = fuse(cls, iou, None, gamma)
        if rsm is not None:
            columns["cls_rsm"] = fuse(cls, None, rsm, gamma)
        if iou is not None and rsm is not None:
            columns["fused"] = fuse(cls, iou, rsm, gamma)
    return columns


def regions(detections: Sequence[Detection]) -> dict[str, Tensor]:
    """What one inference saw of every box, [N,4] each, in the order of `match`.

    Returns:
        ``proposal`` (the RoI entering stage 1), ``stage1``, ... (what stage 1 gave to stage 2, ...) and ``final``.

    Raises:
        UserError: the detections carry no proposals.
    """
    missing = [str(d.get("image_id", number)) for number, d in enumerate(detections) if "proposals" not in d]
    if missing:
        raise UserError(f"detections of image {missing[0]}: no 'proposals'; use a detector that reports them")
    result = {"proposal": _column(detections, "proposals", 4)}
    if detections and all("stage_boxes" in detection for detection in detections):
        stages = {torch.as_tensor(detection["stage_boxes"]).shape[-2] for detection in detections}
        if len(stages) != 1:
            raise UserError(f"detections: images of {sorted(stages)} stages; give those of one inference")
        passed = _column(detections, "stage_boxes", stages.pop(), 4)
        result |= {f"stage{stage}": passed[:, stage - 1] for stage in range(1, passed.shape[1])}
    return {**result, "final": _column(detections, "boxes", 4)}


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU [N] of each box with its partner, [N,4] xyxy each; 0 where a coordinate is NaN or both have no area."""
    common = paired_intersection(boxes, others)
    return (common / (box_ops.area(boxes) + box_ops.area(others) - common)).nan_to_num(0.0)


def paired_intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Area [N] in square pixels that each box shares with its partner, [N,4] xyxy each."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    return (high - low).clamp(min=0).prod(dim=1)


def image_positions(image_ids: Tensor, truth: GroundTruth) -> Tensor:
    """[N] image ids as positions in the ground truth's `image_ids`."""
    place = {image_id: number for number, image_id in enumerate(truth.image_ids)}
    return torch.tensor([place[image_id] for image_id in image_ids.tolist()], dtype=torch.int64)


def _column(detections: Sequence[Detection], name: str, *shape: int) -> Tensor:
    parts = [torch.as_tensor(detection[name]).detach().cpu().float().reshape(-1, *shape) for detection in detections]
    return torch.cat([torch.zeros(0, *shape), *parts])
