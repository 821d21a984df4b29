"""The fused score (Eq. 4) and what is done with scores afterwards: soft-NMS."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cpm_lib import boxes as box_ops


def fuse(cls: Tensor, iou: Tensor | None, rsm: Tensor | None, gamma: float, *, clamp: bool = True) -> Tensor:
    """score_fused = (score_cls * score_ISM)^gamma * score_RSM^(1 - gamma), Eq. 4.

    Args:
        cls: class probabilities [N] in 0..1.
        iou: second output of the ISM [N], raw; None leaves the factor out.
        rsm: probability of the same class from the RSM [N]; None gives cls * iou without a power.
        gamma: 0..1; 1 ignores the RSM, 0 everything else (paper: 0.8).
        clamp: limit `iou` to 0..1 first. Without it a negative value ends as NaN, as in the authors' code.

    Returns:
        [N]
    """
    score = cls
    if iou is not None:
        score = score * (iou.clamp(0, 1) if clamp else iou)
    if rsm is not None:
        score = score**gamma * rsm ** (1 - gamma)
    return score


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    method: Literal["linear", "gaussian"] = "linear",
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    min_score: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS within each class, all classes at once (facts 9).

    The best remaining box is taken and its neighbours of the same class decay: `linear` by 1 - IoU where
    the IoU exceeds `iou_threshold`, `gaussian` by exp(-IoU^2 / sigma) everywhere. Boxes below `min_score` go.

    Args:
        boxes: [N, 4]; scores: [N]; labels: [N].

    Returns:
        indices [K] into the input in the order they were taken, and their decayed scores [K].
    """
    overlap = box_ops.iou(boxes, boxes)
    decay = torch.exp(-overlap.square() / sigma)
    if method == "linear":
        decay = torch.where(overlap > iou_threshold, 1 - overlap, torch.ones_like(overlap))
    decay = torch.where(labels[:, None] == labels[None], decay, torch.ones_like(decay))
    remaining = scores.nan_to_num(nan=-1.0)  # no number, no rank
    kept, kept_scores = [], []
    for _ in range(len(boxes)):
        best = remaining.argmax()
        if remaining[best] < max(min_score, 0):
            break
        kept.append(best)
        kept_scores.append(remaining[best].clone())
        remaining = torch.where(remaining < 0, remaining, remaining * decay[best])
        remaining[best] = -1.0  # taken
    if not kept:
        return torch.zeros(0, dtype=torch.long, device=boxes.device), scores[:0]
    return torch.stack(kept), torch.stack(kept_scores)
