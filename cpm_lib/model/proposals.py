"""Region proposal network with the authors' anchors and conventions (facts 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, remove_small_boxes

from cpm_lib import boxes as box_ops
from cpm_lib._torchvision import Matcher, RPNHead
from cpm_lib.config import Config
from cpm_lib.model.backbone import STRIDES
from cpm_lib.model.fast_convs import adopt
from cpm_lib.model.losses import Mean, box_loss, objectness_loss
from cpm_lib.model.regions import Batch, Regions, concatenate, ground_truth
from cpm_lib.model.sampling import Sampling

_UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def cell_anchors(stride: int, scale: float, ratios: tuple[float, ...], plus_one: bool) -> Tensor:
    """Anchors [len(ratios), 4] of the cell at the origin; side `scale * stride`, ratios are h / w.

    With `plus_one` the authors' rounded, last-pixel-inclusive boxes (facts 3.1).
    """
    anchors = []
    for ratio in ratios:
        if plus_one:
            base_width = round(math.sqrt(stride * stride / ratio))
            width, height = base_width * scale, round(base_width * ratio) * scale
            centre, margin_x, margin_y = (stride - 1) / 2, (width - 1) / 2, (height - 1) / 2
        else:
            width = scale * stride / math.sqrt(ratio)
            centre, margin_x, margin_y = stride / 2, width / 2, width * ratio / 2
        anchors.append((centre - margin_x, centre - margin_y, centre + margin_x, centre + margin_y))
    return torch.tensor(anchors)


class Proposals(nn.Module):
    """RPN: anchors on P2..P6, scored and shifted into class-agnostic proposals."""

    def __init__(self, config: Config, sampling: Sampling) -> None:
        super().__init__()
        self.config, self.sampling = config.proposals, sampling
        self.plus_one = config.conventions.pixel_plus_one
        self.joint = config.conventions.joint_proposals
        channels = config.backbone.fpn_channels
        self.head = RPNHead(channels, len(self.config.ratios))
        adopt(self.head)
        self.matcher = Matcher(self.config.positive_iou, self.config.negative_iou, allow_low_quality_matches=True)

    def forward(self, features: list[Tensor], batch: Batch) -> tuple[Regions, dict[str, Mean]]:
        """Proposals of all images (training: with the ground truth appended) and, in training, the losses."""
        logits, deltas = self.head(features)
        anchors = [self.anchors(maps, stride) for maps, stride in zip(features, STRIDES, strict=True)]
        # Channel a of a map belongs to ratio a; anchors are ordered by y, x, ratio.
        logits = [level.permute(0, 2, 3, 1).flatten(1).float() for level in logits]
        deltas = [_per_anchor(level, len(self.config.ratios)).float() for level in deltas]
        losses: dict[str, Mean] = {}
        if self.training:
            losses = self.losses(torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors), batch)
        with torch.no_grad():
            proposals = self.select([x.detach() for x in logits], [x.detach() for x in deltas], anchors, batch)
            if self.training:
                proposals = concatenate([proposals, *ground_truth(batch)])
        return proposals, losses

    def anchors(self, maps: Tensor, stride: int) -> Tensor:
        """Anchors [H * W * ratios, 4] of one level, in pixels of the network input."""
        cell = cell_anchors(stride, self.config.anchor_scale, self.config.ratios, self.plus_one).to(maps.device)
        height, width = maps.shape[-2:]
        y = torch.arange(height, device=maps.device) * stride
        x = torch.arange(width, device=maps.device) * stride
        shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=-1)
        return (shifts[:, :, None] + cell).reshape(-1, 4)

    def labels(self, anchors: Tensor, gt_boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """1 positive, 0 negative, -1 not used, [A]; and the index of each anchor's ground truth, [A]."""
        if len(gt_boxes):
            best = self.matcher(box_ops.iou(gt_boxes, anchors, self.plus_one))
        else:
            best = torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        labels = (best >= 0).long()
        labels[best == Matcher.BETWEEN_THRESHOLDS] = -1
        if self.config.inside_only:
            height, width = size
            # Anchors that end at the border are inside; the last pixel is part of a `plus_one` box.
            right, bottom = (width - 1, height - 1) if self.plus_one else (width, height)
            inside = (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] <= right) & (anchors[:, 3] <= bottom)
            labels[~inside] = -1
        return labels, best.clamp(min=0)

    def losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, batch: Batch) -> dict[str, Mean]:
        """L_rpn of Eq. 5: logits [B, A], deltas [B, A, 4]."""
        chosen_logits, chosen_labels, positive_deltas, targets = [], [], [], []
        for image, gt_boxes in enumerate(batch.gt_boxes):
            labels, which = self.labels(anchors, gt_boxes, batch.sizes[image])
            chosen = self.sampling.balanced(
                labels, self.config.anchors_per_image, self.config.positive_fraction, batch.image_ids[image]
            )
            chosen_logits.append(logits[image, chosen])
            chosen_labels.append(labels[chosen])
            positive = chosen[labels[chosen] > 0]
            positive_deltas.append(deltas[image, positive])
            matched = gt_boxes[which[positive]] if len(gt_boxes) else anchors[positive]
            targets.append(box_ops.encode(anchors[positive], matched, _UNIT_WEIGHTS, self.plus_one))
        labels = torch.cat(chosen_labels)
        return {
            "loss_objectness": objectness_loss(torch.cat(chosen_logits), labels),
            "loss_rpn_box_reg": box_loss(torch.cat(positive_deltas), torch.cat(targets), 1 / 9, len(labels)),
        }

    def select(self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], batch: Batch) -> Regions:
        """The best boxes per level after NMS, then the best over all levels (facts 3.5)."""
        config = self.config
        before = config.pre_nms_train if self.training else config.pre_nms_test
        after = config.post_nms_train if self.training else config.post_nms_test
        images = []
        for image, size in enumerate(batch.sizes):
            boxes, scores, levels = [], [], []
            for level, (level_logits, level_deltas, level_anchors) in enumerate(
                zip(logits, deltas, anchors, strict=True)
            ):
                score, top = level_logits[image].sigmoid().topk(min(before, len(level_anchors)))
                box = box_ops.decode(level_deltas[image, top], level_anchors[top], _UNIT_WEIGHTS, self.plus_one)
                boxes.append(box_ops.clip(box, size, self.plus_one))
                scores.append(score)
                levels.append(torch.full_like(top, level))
            box, score, level_of = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
            if not self.plus_one:
                # A box clipped to zero area has no IoU with anything, so NMS would never drop it.
                real = remove_small_boxes(box, 1e-3)
                box, score, level_of = box[real], score[real], level_of[real]
            keep = batched_nms(box, score, level_of, config.nms_iou)
            keep = torch.cat([keep[level_of[keep] == number][:after] for number in range(len(anchors))])
            if not (self.training and self.joint):
                keep = keep[score[keep].topk(min(after, len(keep))).indices]
            zeros = torch.zeros_like(keep)
            images.append(Regions(box[keep], zeros + image, zeros, score[keep]))
        proposals = concatenate(images)
        if self.training and self.joint:
            top = proposals.scores.topk(min(after, len(proposals))).indices
            proposals = proposals[top.sort().values]
        return proposals


def _per_anchor(level: Tensor, anchors: int) -> Tensor:
    """[B, anchors * 4, H, W] -> [B, H * W * anchors, 4]"""
    batch, _, height, width = level.shape
    return level.view(batch, anchors, 4, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
