"""Faster R-CNN with FPN from the same parts: the offset-guided baseline of Table 2."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.model.classification import ClassificationBranch, linear, sample_regions
from cpm_lib.model.detector import Detection, Detector
from cpm_lib.model.losses import Mean, box_loss, cross_entropy
from cpm_lib.model.regions import Batch, Regions, match

CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def offset_loss(deltas: Tensor, samples: Regions, batch: Batch, plus_one: bool) -> Mean:
    """Box regression on the positive samples: deltas [R, num_classes, 4], of which the RoI's own class counts."""
    positive = torch.nonzero(samples.labels > 0).flatten()
    _, gt_boxes, _ = match(samples, batch, plus_one)
    targets = box_ops.encode(samples.boxes[positive], gt_boxes[positive], CODER_WEIGHTS, plus_one)
    return box_loss(deltas[positive, samples.labels[positive]], targets, 1.0, len(samples))


class FasterRCNN(Detector):
    """Classification branch with one box regression per class on its last hidden layer.

    Score threshold and NMS apply to the regressed boxes. See `Detector` for inputs and outputs.
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.classification = ClassificationBranch(config, num_classes, self.sampling)
        self.regressor = linear(config.classification.hidden, 4 * num_classes, std=0.001)

    def train_heads(self, features: list[Tensor], proposals: Regions, batch: Batch) -> dict[str, Mean]:
        config, plus_one = self.config.classification, self.config.conventions.pixel_plus_one
        samples = sample_regions(
            proposals, batch, config.rois_per_image, config.positive_fraction, config.positive_iou,
            self.sampling, plus_one,
        )  # fmt: skip
        hidden = self.classification.classifier.hidden(features, samples)
        logits = self.classification.classifier.predictor(hidden)
        deltas = self.regressor(hidden).view(len(samples), -1, 4)
        return {
            "loss_classifier": cross_entropy(logits, samples.labels),
            "loss_box_reg_1": offset_loss(deltas, samples, batch, plus_one),
        }

    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> list[Detection]:
        config, plus_one = self.config.classification, self.config.conventions.pixel_plus_one
        hidden = self.classification.classifier.hidden(features, proposals)
        probabilities = self.classification.classifier.predictor(hidden).softmax(dim=1)
        deltas = self.regressor(hidden).view(len(proposals), -1, 4)
        found = []
        for image, size in enumerate(batch.sizes):
            index = proposals.of_image(image)
            roi, label = torch.nonzero(probabilities[index, 1:] > config.score_threshold, as_tuple=True)
            roi, label = index[roi], label + 1
            score = probabilities[roi, label]
            decoded = box_ops.decode(deltas[roi, label], proposals.boxes[roi], CODER_WEIGHTS, plus_one)
            boxes = box_ops.clip(decoded, size, plus_one)
            keep = batched_nms(boxes, score, label, config.nms_iou)
            kept = {"boxes": boxes, "labels": label, "scores": score, "cls_scores": score}
            kept |= {"stage_boxes": boxes[:, None], "proposals": proposals.boxes[roi]}
            found.append({key: value[keep] for key, value in kept.items()})
        return found
