"""Losses, all differentiable with zero samples: a sum over nothing is 0 and still reaches every parameter.

Names, and where they enter Eq. 5 and 6 (all lambdas and alphas are 1 in the paper):
`loss_objectness`, `loss_rpn_box_reg` (L_rpn), `loss_classifier` (L_cls), `loss_grid_1..S` (L_CMM),
`loss_iou_S` (L_ISM), `loss_rescore` (L_RSM); the baselines add `loss_box_reg_1..S`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [N, C] and labels [N] (facts 5, 8)."""
    return F.cross_entropy(logits.float(), labels, reduction="sum") / max(len(labels), 1)


def objectness_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over the sampled anchors [N] (facts 3.4)."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
    return loss / max(len(labels), 1)


def box_loss(deltas: Tensor, targets: Tensor, beta: float, normaliser: int) -> Tensor:
    """Smooth L1 over positives [N, 4], summed, divided by the number of all samples (facts 3.4, 11.2)."""
    return F.smooth_l1_loss(deltas.float(), targets, beta=beta, reduction="sum") / max(normaliser, 1)


def heatmap_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over all cells of [N, points, w, w], L_BCE of Eq. 2 (facts 6.3)."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")
    return loss / max(targets.numel(), 1)
