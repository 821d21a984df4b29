"""Cascade mapping module, CMM: stages of grid branches whose regions shrink (Sec. 3.2, Eq. 1 and 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpm_lib.config import Config, Conventions
from cpm_lib.model.grid_branch import POOL_SIZE, GridBranch
from cpm_lib.model.losses import Mean, heatmap_loss
from cpm_lib.model.regions import Batch, Regions, RoIPooler, concatenate, ground_truth, match
from cpm_lib.model.sampling import Sampling


class StageOutput(NamedTuple):
    """What a stage leaves behind in training; the scoring modules see that of the last one."""

    entering: Regions
    leaving: Regions
    """The same RoIs with the boxes the stage predicts."""
    features: Tensor
    """g' of Eq. 3, [R, C, 7, 7]."""


class CascadeMapping(nn.Module):
    """S stages; stage j pools its RoIs, predicts heatmaps over regions extended by ratio j, and votes boxes."""

    def __init__(self, config: Config, sampling: Sampling) -> None:
        super().__init__()
        self.grid, self.cascade, self.conventions = config.grid, config.cascade, config.conventions
        self.sampling = sampling
        self.pool = RoIPooler(POOL_SIZE, config.classification.canonical_size, self.conventions.pixel_plus_one)
        channels = config.backbone.fpn_channels
        self.stages = nn.ModuleList(GridBranch(config.grid, channels) for _ in range(config.cascade.stages))

    def train_step(self, features: list[Tensor], samples: Regions, batch: Batch) -> tuple[StageOutput, dict[str, Mean]]:
        """L_CMM of Eq. 2 for the classification branch's samples; boxes pass between stages without gradient."""
        losses = {}
        reached, losses["loss_grid_1"] = self.train_stage(0, features, self.first_regions(samples, batch), batch)
        for number in range(1, self.cascade.stages):
            regions = next_regions(reached.entering, reached.leaving, batch, self.conventions, self.sampling)
            reached, losses[f"loss_grid_{number + 1}"] = self.train_stage(number, features, regions, batch)
        return reached, losses

    def train_stage(
        self, number: int, features: list[Tensor], regions: Regions, batch: Batch
    ) -> tuple[StageOutput, Mean]:
        """One stage, counted from 0: its IoU selector, its boxes without gradient, and its term of Eq. 2."""
        stage, ratio = self.stages[number], self.cascade.mapping_ratios[number]
        assert isinstance(stage, GridBranch)
        regions, gt_boxes = self.select(regions, batch, number)
        output = stage(self.pool(features, regions))
        targets = stage.targets(regions.boxes, gt_boxes, ratio, self.conventions.heatmap_rounding)
        loss = heatmap_loss(output.heatmaps, targets)
        if output.unfused is not None:
            loss = Mean(loss.total + heatmap_loss(output.unfused, targets).total, loss.samples)
        weight = self.cascade.stage_weights[number] * self.grid.loss_weight
        predicted = regions.with_boxes(stage.decode(output.heatmaps.detach(), regions.boxes, ratio))
        return StageOutput(regions, predicted, output.features), loss.times(weight)

    def refine(self, features: list[Tensor], regions: Regions) -> tuple[Tensor, Tensor]:
        """Eq. 1 at test: every region through all stages.

        Returns:
            boxes after each stage [R, S, 4], features of the last stage [R, C, 7, 7].
        """
        boxes = []
        for number in range(self.cascade.stages):
            regions, last = self.refine_once(number, features, regions)
            boxes.append(regions.boxes)
        return torch.stack(boxes, dim=1), last

    def refine_once(self, number: int, features: list[Tensor], regions: Regions) -> tuple[Regions, Tensor]:
        """One stage at test, counted from 0: the regions with its boxes, and its features [R, C, 7, 7]."""
        stage, ratio = self.stages[number], self.cascade.mapping_ratios[number]
        assert isinstance(stage, GridBranch)
        output = stage(self.pool(features, regions))
        return regions.with_boxes(stage.decode(output.heatmaps, regions.boxes, ratio)), output.features

    def first_regions(self, samples: Regions, batch: Batch) -> Regions:
        """The positive samples, at most `rois_per_image` of each image at random."""
        chosen = []
        for image, image_id in enumerate(batch.image_ids):
            positive = torch.nonzero((samples.image == image) & (samples.labels > 0)).flatten()
            chosen.append(self.sampling.choose(positive, self.grid.rois_per_image, image_id))
        return samples[torch.cat(chosen)]

    def select(self, regions: Regions, batch: Batch, stage: int) -> tuple[Regions, Tensor]:
        """IoU selector: regions above the stage's threshold, and their ground truth [R, 4].

        The first stage takes all: the classification branch has selected already (facts 6.4).
        """
        overlap, gt_boxes, _ = match(regions, batch, self.conventions.pixel_plus_one)
        if stage == 0:
            return regions, gt_boxes
        keep = overlap >= self.cascade.iou_thresholds[stage]
        return regions[keep], gt_boxes[keep]


def next_regions(
    entered: Regions, predicted: Regions, batch: Batch, conventions: Conventions, sampling: Sampling
) -> Regions:
    """Predicted boxes without those of ground-truth RoIs, then ground truth, image by image (facts 6.4)."""
    parts = []
    for image, truth in enumerate(ground_truth(batch)):
        index = entered.of_image(image)
        keep = ~is_copy(entered.boxes[index], truth.boxes, conventions.gt_copies)
        parts.append(predicted[index[keep]])
        if conventions.gt_append < 1:
            dice = torch.rand(len(truth), generator=sampling.generator(batch.image_ids[image]))
            truth = truth[(dice < conventions.gt_append).to(truth.boxes.device)]
        parts.append(truth)
    return concatenate(parts)


def is_copy(boxes: Tensor, gt_boxes: Tensor, rule: str) -> Tensor:
    """Which boxes [N] repeat the ground truth [M, 4].

    `rows` compares whole boxes. `elements` is the authors' trick: a coordinate that equals the same
    coordinate of any ground truth counts -1, and a box stays only if its four then sum to more than 0.
    """
    equal = boxes[:, None] == gt_boxes[None]
    if rule == "rows":
        return equal.all(dim=2).any(dim=1)
    marked = torch.where(equal.any(dim=1), torch.full_like(boxes, -1), boxes)
    return marked.sum(dim=1) <= 0
