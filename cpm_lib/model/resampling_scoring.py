"""Resampling scoring module, RSM: a second opinion on the class, given on the final box (Sec. 3.3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from cpm_lib.config import Config
from cpm_lib.model.classification import RoIClassifier, sample_regions
from cpm_lib.model.losses import Mean, cross_entropy
from cpm_lib.model.regions import Batch, Regions, concatenate
from cpm_lib.model.sampling import Sampling


class ResamplingScoring(nn.Module):
    """A classifier of the classification branch's form, with weights of its own."""

    def __init__(self, config: Config, num_classes: int, sampling: Sampling) -> None:
        super().__init__()
        self.config, self.sampling = config, sampling
        self.classifier = RoIClassifier(config, num_classes)

    def train_step(self, features: list[Tensor], samples: Regions, refined: Regions, batch: Batch) -> Mean:
        """L_RSM: negatives of the classification branch's `samples` and the boxes of the last grid stage.

        Labels are given anew by the IoU of these boxes (facts 8).
        """
        classification = self.config.classification
        parts = []
        for image in range(len(batch)):
            negative = samples.of_image(image)
            parts.append(samples[negative[samples.labels[negative] == 0]])
            parts.append(refined[refined.of_image(image)])
        resampled = sample_regions(
            concatenate(parts), batch, classification.rois_per_image, classification.positive_fraction,
            classification.positive_iou, self.sampling, self.config.conventions.pixel_plus_one,
        )  # fmt: skip
        loss = cross_entropy(self.classifier(features, resampled), resampled.labels)
        return loss.times(self.config.scoring.rsm_weight)

    def forward(self, features: list[Tensor], regions: Regions) -> Tensor:
        """Class probabilities [R, num_classes] of the boxes of `regions`."""
        return self.classifier(features, regions).softmax(dim=1)
