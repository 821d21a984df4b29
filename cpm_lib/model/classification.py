"""Classification branch: what is in a RoI (Sec. 3.1, 3.4, facts 5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.model.losses import Mean, cross_entropy
from cpm_lib.model.regions import Batch, Regions, RoIPooler, match
from cpm_lib.model.sampling import Sampling


class Predictor(nn.Linear):
    """A last layer in float32 even under autocast: eight bits of a score would rank many detections as equal."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast("cuda" if input.is_cuda else "cpu", enabled=False):
            return super().forward(input.float())


def linear(inputs: int, outputs: int, std: float | None = None) -> nn.Linear:
    """Fully connected layer, bias 0; weights uniform with variance 1 / inputs, or a `Predictor`, normal with `std`."""
    layer = nn.Linear(inputs, outputs) if std is None else Predictor(inputs, outputs)
    if std is None:
        nn.init.kaiming_uniform_(layer.weight, a=1)
    else:
        nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


class TwoLayerHead(nn.Module):
    """RoI features [R, C, 7, 7] -> 1024 -> 1024, ReLU after each."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc6 = linear(channels * 7 * 7, hidden)
        self.fc7 = linear(hidden, hidden)

    def forward(self, pooled: Tensor) -> Tensor:
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


class RoIClassifier(nn.Module):
    """RoIAlign 7x7, two hidden layers, class logits: the form of the classification branch and of the RSM."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__()
        plus_one = config.conventions.pixel_plus_one
        self.pool = RoIPooler(7, config.classification.canonical_size, plus_one)
        self.head = TwoLayerHead(config.backbone.fpn_channels, config.classification.hidden)
        self.predictor = linear(config.classification.hidden, num_classes, std=0.01)

    def hidden(self, features: list[Tensor], regions: Regions) -> Tensor:
        """The last hidden layer [R, hidden], from which the baselines also regress boxes."""
        return self.head(self.pool(features, regions))

    def forward(self, features: list[Tensor], regions: Regions) -> Tensor:
        """Logits [R, num_classes]; column 0 is background."""
        return self.predictor(self.hidden(features, regions))


class Candidates(NamedTuple):
    """Classified RoIs that survive NMS: the boxes the grid branch refines."""

    regions: Regions
    """Labels and class probabilities; per image by falling probability."""
    roi: Tensor
    """Index of the RoI each came from, [D]; equal for several classes of one RoI."""


class ClassificationBranch(nn.Module):
    def __init__(self, config: Config, num_classes: int, sampling: Sampling) -> None:
        super().__init__()
        self.config, self.conventions, self.sampling = config.classification, config.conventions, sampling
        self.classifier = RoIClassifier(config, num_classes)

    def train_step(self, features: list[Tensor], proposals: Regions, batch: Batch) -> tuple[Regions, dict[str, Mean]]:
        """L_cls and the sampled RoIs with their labels (0 = background)."""
        samples = sample_regions(
            proposals, batch, self.config.rois_per_image, self.config.positive_fraction,
            self.config.positive_iou, self.sampling, self.conventions.pixel_plus_one,
        )  # fmt: skip
        logits = self.classifier(features, samples)
        return samples, {"loss_classifier": cross_entropy(logits, samples.labels)}

    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> Candidates:
        """Softmax, threshold, per-class NMS, and at most `rois_at_test` per image (Sec. 3.4.3)."""
        probabilities = self.classifier(features, proposals).softmax(dim=1)
        clipped = clip_regions(proposals, batch, self.conventions.pixel_plus_one)
        return select_candidates(
            probabilities, clipped, len(batch), self.config.score_threshold, self.config.nms_iou,
            self.conventions.rois_at_test,
        )  # fmt: skip


def sample_regions(
    regions: Regions,
    batch: Batch,
    number: int,
    positive_fraction: float,
    positive_iou: float,
    sampling: Sampling,
    plus_one: bool,
) -> Regions:
    """Label by the best IoU and sample `number` regions per image, `positive_fraction` of them positive."""
    overlap, _, labels = match(regions, batch, plus_one)
    labels = torch.where(overlap >= positive_iou, labels, torch.zeros_like(labels))
    chosen = []
    for image, image_id in enumerate(batch.image_ids):
        index = regions.of_image(image)
        chosen.append(index[sampling.balanced(labels[index], number, positive_fraction, image_id)])
    samples = regions[torch.cat(chosen)]
    samples.labels = labels[torch.cat(chosen)]
    return samples


def clip_regions(regions: Regions, batch: Batch, plus_one: bool) -> Regions:
    """Every region clipped to its own image."""
    boxes = regions.boxes.clone()
    for image, size in enumerate(batch.sizes):
        index = regions.of_image(image)
        boxes[index] = box_ops.clip(boxes[index], size, plus_one)
    return regions.with_boxes(boxes)


def select_candidates(
    probabilities: Tensor, regions: Regions, images: int, threshold: float, nms_iou: float, limit: int | None
) -> Candidates:
    """Every (RoI, class) above the threshold, after NMS within image and class.

    Args:
        probabilities: [R, num_classes], column 0 background.
        limit: most candidates per image, by probability; None for all.
    """
    roi, label = torch.nonzero(probabilities[:, 1:] > threshold, as_tuple=True)
    score, boxes, image = probabilities[roi, label + 1], regions.boxes[roi], regions.image[roi]
    group = image * probabilities.shape[1] + label
    keep = batched_nms(boxes, score, group, nms_iou)  # by falling score over all images
    per_image = [keep[image[keep] == number][:limit] for number in range(images)]
    keep = torch.cat(per_image) if per_image else keep
    return Candidates(Regions(boxes[keep], image[keep], label[keep] + 1, score[keep]), roi[keep])
