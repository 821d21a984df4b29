"""Cascade R-CNN, optionally with ISM and RSM that are really used at test (Table 3, facts 11.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.model.cascade_mapping import next_regions
from cpm_lib.model.classification import (
    ClassificationBranch,
    RoIClassifier,
    clip_regions,
    linear,
    sample_regions,
    select_candidates,
)
from cpm_lib.model.detector import Detection, Detector
from cpm_lib.model.fused_score import fuse
from cpm_lib.model.iou_scoring import IoUScoring
from cpm_lib.model.losses import Mean, box_loss, cross_entropy
from cpm_lib.model.regions import Batch, Regions, match
from cpm_lib.model.resampling_scoring import ResamplingScoring


def coder_weights(stage: int) -> tuple[float, float, float, float]:
    """(10, 10, 5, 5) in the first stage, twice and three times that in the next (facts 11.2)."""
    factor = float(stage + 1)
    return (10 * factor, 10 * factor, 5 * factor, 5 * factor)


class CascadeRCNN(Detector):
    """Stages of classifier and class-agnostic box regression with rising IoU thresholds.

    Class logits are averaged over the stages, each on its own boxes. See `Detector` for inputs and outputs.
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(config, num_classes)
        stages, hidden = config.cascade.stages, config.classification.hidden
        self.classification = ClassificationBranch(config, num_classes, self.sampling)
        self.later = nn.ModuleList(RoIClassifier(config, num_classes) for _ in range(stages - 1))
        self.regressors = nn.ModuleList(linear(hidden, 4, std=0.001) for _ in range(stages))
        self.iou_scoring = IoUScoring(config, hidden) if config.scoring.ism else None
        self.resampling = ResamplingScoring(config, num_classes, self.sampling) if config.scoring.rsm else None

    def classifier(self, stage: int) -> RoIClassifier:
        classifier = self.later[stage - 1] if stage else self.classification.classifier
        assert isinstance(classifier, RoIClassifier)
        return classifier

    def train_heads(self, features: list[Tensor], proposals: Regions, batch: Batch) -> dict[str, Mean]:
        config, plus_one = self.config.classification, self.config.conventions.pixel_plus_one
        losses: dict[str, Mean] = {}
        regions = proposals
        first_samples = regions
        for stage, threshold in enumerate(self.config.cascade.iou_thresholds):
            samples = sample_regions(
                regions, batch, config.rois_per_image, config.positive_fraction, threshold, self.sampling, plus_one
            )
            first_samples = samples if stage == 0 else first_samples
            weights, weight = coder_weights(stage), self.config.cascade.stage_weights[stage]
            hidden = self.classifier(stage).hidden(features, samples)
            deltas = self.regressors[stage](hidden)
            positive = torch.nonzero(samples.labels > 0).flatten()
            _, gt_boxes, _ = match(samples, batch, plus_one)
            wanted = box_ops.encode(samples.boxes[positive], gt_boxes[positive], weights, plus_one)
            logits = self.classifier(stage).predictor(hidden)
            losses[f"loss_classifier_{stage + 1}"] = cross_entropy(logits, samples.labels).times(weight)
            losses[f"loss_box_reg_{stage + 1}"] = box_loss(deltas[positive], wanted, 1.0, len(samples)).times(weight)
            predicted = samples.with_boxes(box_ops.decode(deltas.detach(), samples.boxes, weights, plus_one))
            if stage + 1 < self.config.cascade.stages:
                following = next_regions(samples, predicted, batch, self.config.conventions, self.sampling)
                width, height = box_ops.sizes(following.boxes, plus_one)
                regions = following[(width > 0) & (height > 0)]
        self._scoring_losses(losses, features, hidden, (first_samples, samples, predicted), batch)
        return losses

    def _scoring_losses(
        self,
        losses: dict[str, Mean],
        features: list[Tensor],
        hidden: Tensor,
        stages: tuple[Regions, Regions, Regions],
        batch: Batch,
    ) -> None:
        """ISM on the positives of the last stage; RSM on first-stage negatives and last-stage positives."""
        first, entering, leaving = stages
        conventions = self.config.conventions
        positive = torch.nonzero(entering.labels > 0).flatten()
        if self.iou_scoring is not None:
            judged = leaving if conventions.ism_target == "output" else entering
            name = f"loss_iou_{self.config.cascade.stages}"
            losses[name] = self.iou_scoring.train_step(hidden[positive], judged[positive], batch)
        if self.resampling is not None:
            refined = leaving if conventions.rsm_positives == "output" else entering
            losses["loss_rescore"] = self.resampling.train_step(features, first, refined[positive], batch)

    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> list[Detection]:
        config, conventions = self.config.classification, self.config.conventions
        regions, logits, stage_boxes = proposals, [], []
        for stage in range(self.config.cascade.stages):
            hidden = self.classifier(stage).hidden(features, regions)
            logits.append(self.classifier(stage).predictor(hidden))
            deltas = self.regressors[stage](hidden)
            boxes = box_ops.decode(deltas, regions.boxes, coder_weights(stage), conventions.pixel_plus_one)
            regions = regions.with_boxes(boxes)
            stage_boxes.append(boxes)
        regions = clip_regions(regions, batch, conventions.pixel_plus_one)
        probabilities = torch.stack(logits).mean(dim=0).softmax(dim=1)
        iou = None
        ranked = probabilities
        if self.iou_scoring is not None:
            iou = self.iou_scoring(hidden)[:, 1]
            ranked = fuse(probabilities, iou[:, None], None, 1.0, clamp=conventions.ism_clamp)
        kept, roi = select_candidates(ranked, regions, len(batch), config.score_threshold, config.nms_iou, None)
        cls = probabilities[roi, kept.labels]
        iou = iou[roi] if iou is not None else None
        rsm = None
        if self.resampling is not None:
            rsm = self.resampling(features, kept)[torch.arange(len(kept), device=kept.labels.device), kept.labels]
        found = {
            "boxes": kept.boxes,
            "labels": kept.labels,
            "scores": fuse(cls, iou, rsm, self.config.scoring.gamma, clamp=conventions.ism_clamp),
            "cls_scores": cls,
            "iou_scores": iou.clamp(0, 1) if iou is not None and conventions.ism_clamp else iou,
            "rsm_scores": rsm,
            "stage_boxes": torch.stack(stage_boxes, dim=1)[roi],
            "proposals": proposals.boxes[roi],
        }
        indices = [kept.of_image(image) for image in range(len(batch))]
        return [{key: value[index] for key, value in found.items() if value is not None} for index in indices]
