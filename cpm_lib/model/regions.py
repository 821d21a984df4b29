"""Regions of interest of a whole batch, how they meet the ground truth, and how they are pooled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpm_lib import boxes as box_ops
from cpm_lib._torchvision import roi_align
from cpm_lib.model.backbone import STRIDES


@dataclass
class Batch:
    """Images as the network sees them, with their targets in the same pixels."""

    pixels: Tensor
    """[B, 3, H, W], normalised and padded."""
    sizes: list[tuple[int, int]]
    """(height, width) of each image before padding."""
    image_ids: list[int]
    gt_boxes: list[Tensor]
    """[M_b, 4] per image; empty lists at test."""
    gt_labels: list[Tensor]

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass
class Regions:
    """RoIs of all images in one flat list.

    `boxes` [R, 4] in network pixels, `image` [R] the index of their image in the batch, `labels` [R]
    (0 = background), `scores` [R] objectness or class probability.
    """

    boxes: Tensor
    image: Tensor
    labels: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor) -> Regions:
        return Regions(self.boxes[index], self.image[index], self.labels[index], self.scores[index])

    def with_boxes(self, boxes: Tensor) -> Regions:
        return Regions(boxes, self.image, self.labels, self.scores)

    def of_image(self, image: int) -> Tensor:
        """Indices of the regions of one image."""
        return torch.nonzero(self.image == image).flatten()


def concatenate(parts: list[Regions]) -> Regions:
    return Regions(
        torch.cat([p.boxes for p in parts]),
        torch.cat([p.image for p in parts]),
        torch.cat([p.labels for p in parts]),
        torch.cat([p.scores for p in parts]),
    )


def ground_truth(batch: Batch) -> list[Regions]:
    """The ground truth of each image as regions with score 1."""
    return [
        Regions(boxes, torch.full_like(labels, image), labels, torch.ones_like(boxes[:, 0]))
        for image, (boxes, labels) in enumerate(zip(batch.gt_boxes, batch.gt_labels, strict=True))
    ]


def match(regions: Regions, batch: Batch, plus_one: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Best ground truth of each region within its image.

    Returns:
        IoU [R] (0 without ground truth), boxes [R, 4] (the region itself without), labels [R] (0 without).
    """
    best = torch.zeros_like(regions.boxes[:, 0])
    matched = regions.boxes.clone()
    labels = torch.zeros_like(regions.labels)
    for image, (gt_boxes, gt_labels) in enumerate(zip(batch.gt_boxes, batch.gt_labels, strict=True)):
        index = regions.of_image(image)
        if not len(index) or not len(gt_boxes):
            continue
        best[index], which = box_ops.iou(regions.boxes[index], gt_boxes, plus_one).max(dim=1)
        matched[index], labels[index] = gt_boxes[which], gt_labels[which]
    return best, matched, labels


def assign_levels(boxes: Tensor, canonical_size: float, plus_one: bool) -> Tensor:
    """Pyramid level 2..5 of each box: FPN's rule, a side of `canonical_size` pixels goes to P4 (facts 4)."""
    side = box_ops.area(boxes, plus_one).clamp(min=0).sqrt()
    level = torch.floor(4 + torch.log2(side / canonical_size + 1e-6))
    # A diverging run has NaN boxes; they get a level too, so that its NaN losses come out and are reported.
    return level.nan_to_num(nan=2).clamp(2, 5).long()


class RoIPooler(nn.Module):
    """RA of Eq. 1: RoIAlign of every region from its pyramid level, 2x2 samples per bin, not aligned (facts 4)."""

    def __init__(self, output_size: int, canonical_size: float, plus_one: bool) -> None:
        super().__init__()
        self.output_size, self.canonical_size, self.plus_one = output_size, canonical_size, plus_one

    def forward(self, features: list[Tensor], regions: Regions) -> Tensor:
        """P2..P5 (further maps are ignored) and R regions -> float [R, C, output_size, output_size]."""
        rois = torch.cat((regions.image[:, None].to(regions.boxes.dtype), regions.boxes), dim=1)
        levels = assign_levels(regions.boxes, self.canonical_size, self.plus_one)
        if rois.is_cuda:
            return self.without_waiting(features, rois, levels)
        order = torch.argsort(levels, stable=True)
        counts = torch.bincount(levels - 2, minlength=4).tolist()
        parts = [
            roi_align(maps, part, self.output_size, 1 / stride, sampling_ratio=2)
            for maps, part, stride in zip(features[:4], rois[order].split(counts), STRIDES[:4], strict=True)
        ]
        return torch.cat(parts)[torch.argsort(order)]

    def without_waiting(self, features: list[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        """The same without asking the device how many regions each level has.

        Every level takes all regions [R, 5]. Those of other levels lie far outside its map, where a kernel ends at
        once and gives zeros.
        """
        outside = torch.full_like(rois[:, 1:], -1e6)
        pooled = torch.zeros((), device=rois.device)
        for level, (maps, stride) in enumerate(zip(features[:4], STRIDES[:4], strict=True), start=2):
            boxes = torch.where((levels == level)[:, None], rois[:, 1:], outside)
            part = roi_align(maps, torch.cat((rois[:, :1], boxes), dim=1), self.output_size, 1 / stride, 2)
            pooled = pooled + part
        return pooled
