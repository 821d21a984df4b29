"""Losses, all differentiable with zero samples: a sum over nothing is 0 and still reaches every parameter.

Names, and where they enter Eq. 5 and 6 (all lambdas and alphas are 1 in the paper):
`loss_objectness`, `loss_rpn_box_reg` (L_rpn), `loss_classifier` (L_cls), `loss_grid_1..S` (L_CMM),
`loss_iou_S` (L_ISM), `loss_rescore` (L_RSM); the baselines add `loss_box_reg_1..S`.

Each is a `Mean`: its division waits until the numbers of samples of all processes are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


class Mean(NamedTuple):
    """A mean over samples before its division."""

    total: Tensor
    """Sum over the samples of this process, scalar."""
    samples: int

    @property
    def value(self) -> Tensor:
        """The mean over this process alone; 0 without samples."""
        return self.total / max(self.samples, 1)

    def times(self, weight: float) -> Mean:
        return Mean(weight * self.total, self.samples)


def normalise(losses: Mapping[str, Mean], over: Literal["global", "process"]) -> dict[str, Tensor]:
    """The losses as numbers, so that their mean over the processes is the loss of the whole batch.

    DistributedDataParallel averages gradients over processes that may hold different numbers of samples.
    `global` divides by the mean number of samples per process: the average is then the mean over all samples,
    whatever the number of processes. `process` divides by the process's own number, as the authors' code does.
    """
    if over == "process" or not dist.is_initialized() or dist.get_world_size() == 1 or not losses:
        return {name: loss.value for name, loss in losses.items()}
    device = next(iter(losses.values())).total.device
    samples = torch.tensor([loss.samples for loss in losses.values()], dtype=torch.float64, device=device)
    dist.all_reduce(samples)
    shares = (samples.clamp(min=1) / dist.get_world_size()).float()
    return {name: loss.total / share for (name, loss), share in zip(losses.items(), shares, strict=True)}


def cross_entropy(logits: Tensor, labels: Tensor) -> Mean:
    """Cross-entropy of logits [N, C] and labels [N] (facts 5, 8)."""
    return Mean(F.cross_entropy(logits.float(), labels, reduction="sum"), len(labels))


def objectness_loss(logits: Tensor, labels: Tensor) -> Mean:
    """Binary cross-entropy over the sampled anchors [N] (facts 3.4)."""
    return Mean(F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum"), len(labels))


def box_loss(deltas: Tensor, targets: Tensor, beta: float, samples: int) -> Mean:
    """Smooth L1 over positives [N, 4], summed, over the number of all samples (facts 3.4, 11.2)."""
    return Mean(F.smooth_l1_loss(deltas.float(), targets, beta=beta, reduction="sum"), samples)


def heatmap_loss(logits: Tensor, targets: Tensor) -> Mean:
    """Binary cross-entropy over all cells of [N, points, w, w], L_BCE of Eq. 2 (facts 6.3)."""
    return Mean(F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum"), targets.numel())
