"""Faster R-CNN with FPN from the same parts: the offset-guided baseline of Table 2."""

from __future__ import annotations

import torch
from torch import Tensor

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.model.classification import ClassificationBranch, linear, sample_regions, select_candidates
from cpm_lib.model.detector import Detection, Detector, Target
from cpm_lib.model.losses import box_loss, cross_entropy
from cpm_lib.model.regions import Batch, Regions, match

CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class FasterRCNN(Detector):
    """Classification branch with one box regression per class on its last hidden layer.

    Score threshold and NMS apply to the regressed boxes. See `Detector` for inputs and outputs.
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.classification = ClassificationBranch(config, num_classes, self.sampling)
        self.regressor = linear(config.classification.hidden, 4 * num_classes, std=0.001)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> dict[str, Tensor] | list[Detection]:
        batch = self.prepare(images, targets)
        features = self.backbone(batch.pixels)
        proposals, losses = self.proposals(features, batch)
        if self.training:
            losses |= self.train_heads(features, proposals, batch)
            self.sampling.advance()
            return losses
        found = self.detect(features, proposals, batch)
        return self.restore(found, batch, images, self.config.classification.detections_per_image)

    def train_heads(self, features: list[Tensor], proposals: Regions, batch: Batch) -> dict[str, Tensor]:
        config, plus_one = self.config.classification, self.config.conventions.pixel_plus_one
        samples = sample_regions(
            proposals, batch, config.rois_per_image, config.positive_fraction, config.positive_iou,
            self.sampling, plus_one,
        )  # fmt: skip
        hidden = self.classification.classifier.hidden(features, samples)
        logits = self.classification.classifier.predictor(hidden)
        deltas = self.regressor(hidden).view(len(samples), -1, 4)
        positive = torch.nonzero(samples.labels > 0).flatten()
        _, gt_boxes, _ = match(samples, batch, plus_one)
        targets = box_ops.encode(samples.boxes[positive], gt_boxes[positive], CODER_WEIGHTS, plus_one)
        return {
            "loss_classifier": cross_entropy(logits, samples.labels),
            "loss_box_reg_1": box_loss(deltas[positive, samples.labels[positive]], targets, 1.0, len(samples)),
        }

    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> list[Detection]:
        config, plus_one = self.config.classification, self.config.conventions.pixel_plus_one
        hidden = self.classification.classifier.hidden(features, proposals)
        probabilities = self.classification.classifier.predictor(hidden).float().softmax(dim=1)
        deltas = self.regressor(hidden).float().view(len(proposals), -1, 4)
        found = []
        for image, size in enumerate(batch.sizes):
            index = proposals.of_image(image)
            roi, label = torch.nonzero(probabilities[index, 1:] > config.score_threshold, as_tuple=True)
            roi = index[roi]
            decoded = box_ops.decode(deltas[roi, label + 1], proposals.boxes[roi], CODER_WEIGHTS, plus_one)
            boxes = box_ops.clip(decoded, size, plus_one)
            one_hot = torch.zeros(len(roi), self.num_classes, device=boxes.device)
            one_hot[torch.arange(len(roi)), label + 1] = probabilities[roi, label + 1]
            regions = Regions(boxes, torch.zeros_like(roi), label + 1, probabilities[roi, label + 1])
            kept, row = select_candidates(one_hot, regions, 1, config.score_threshold, config.nms_iou, None)
            found.append(
                {
                    "boxes": kept.boxes,
                    "labels": kept.labels,
                    "scores": kept.scores,
                    "cls_scores": kept.scores,
                    "stage_boxes": kept.boxes[:, None],
                    "proposals": proposals.boxes[roi[row]],
                }
            )
        return found
