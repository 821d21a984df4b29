"""IoU scoring module, ISM: how well a box fits, learnt from the grid features (Sec. 3.3.1, Eq. 3 and 7)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.model.classification import linear
from cpm_lib.model.losses import Mean
from cpm_lib.model.regions import Batch, Regions

IoULoss = Literal["l2", "l1", "smooth_l1"]


class IoUScoring(nn.Module):
    """f of Eq. 3: three fully connected layers on the last stage's features before upsampling."""

    def __init__(self, config: Config, feature_size: int) -> None:
        super().__init__()
        self.config, self.conventions = config.scoring, config.conventions
        hidden = config.classification.hidden
        self.fc1 = linear(feature_size, hidden)
        self.fc2 = linear(hidden, hidden)
        self.predictor = linear(hidden, 2, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """[R, C, 7, 7] -> raw scores [R, 2] for background (1 - IoU) and foreground (IoU)."""
        hidden = F.relu(self.fc2(F.relu(self.fc1(features.flatten(1)))))
        return self.predictor(hidden)

    def train_step(self, features: Tensor, regions: Regions, batch: Batch) -> Mean:
        """L_ISM of Eq. 7 for regions [R] whose IoU with the ground truth is the target."""
        targets = torch.zeros(len(regions), 2, device=features.device)
        for image, gt_boxes in enumerate(batch.gt_boxes):
            index = regions.of_image(image)
            targets[index] = iou_targets(regions.boxes[index], gt_boxes, plus_one=self.conventions.pixel_plus_one)
        loss = iou_errors(self(features), targets, self.config.ism_loss, official=self.conventions.ism_index_slip)
        return loss.times(self.config.ism_weight)


def iou_targets(rois: Tensor, gt: Tensor, *, plus_one: bool = False) -> Tensor:
    """Targets of the ISM: (1 - t, t) with t the best IoU of each RoI [N, 4] with any ground truth [M, 4].

    Returns:
        [N, 2] in 0..1; (1, 0) without ground truth.
    """
    best = box_ops.iou(rois, gt, plus_one).max(dim=1).values if len(gt) else torch.zeros_like(rois[:, 0])
    return torch.stack((1 - best, best), dim=1)


def iou_loss(logits: Tensor, targets: Tensor, kind: IoULoss = "l2", official: bool = False) -> Tensor:
    """L of Eq. 7 and Table 6 over raw scores and targets [N, 2]; scalar, 0 for N = 0.

    `l2` is half the mean squared error over all 2N values. With `official` it is what the authors'
    l2 loss computes: the mean over all positive targets (row i, column j) of half the squared errors of
    row i *and of row j*, because the column number is used as a row number too (facts 7). It needs two
    rows; a single row (the authors' code stops there) falls back to the loss that was meant.
    """
    return iou_errors(logits, targets, kind, official).value


def iou_errors(logits: Tensor, targets: Tensor, kind: IoULoss, official: bool) -> Mean:
    """`iou_loss` before its division by the number of values."""
    if kind == "l1":
        return Mean(F.l1_loss(logits, targets, reduction="sum"), logits.numel())
    if kind == "smooth_l1":
        return Mean(F.smooth_l1_loss(logits, targets, reduction="sum"), logits.numel())
    if not official or len(logits) < 2:
        return Mean(0.5 * F.mse_loss(logits, targets, reduction="sum"), logits.numel())
    positive = torch.nonzero(targets > 0)
    errors = (logits - targets).square().sum(dim=1)
    return Mean(0.5 * errors[positive].sum(), len(positive))
