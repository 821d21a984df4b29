"""Crop classification: teaches a fresh backbone what objects look like, in the place of ImageNet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from cpm_lib import environment
from cpm_lib.config import Config
from cpm_lib.data import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.model.backbone import Backbone, body_channels
from cpm_lib.model.detector import normalise
from cpm_lib.progress import progress

CROP = 48
"""Side of the crops in pixels; C5 is 2x2 then."""
_MARGIN = 0.1
"""Share of the box added on each side, so that the border of the object can be seen."""


def pretrain_backbone(
    config: Config,
    dataset: DetectionDataset,
    *,
    epochs: int = 5,
    batch_size: int = 128,
    lr: float = 3e-3,
    seed: int = 0,
    held_out: int = 200,
) -> tuple[dict[str, Tensor], float]:
    """Train the backbone's body to name the object in a crop.

    Args:
        dataset: its objects are the examples; of each image all, crowds excepted.
        held_out: this many last images are not trained on but tested.

    Returns:
        the body's tensors under the names they have in a detector (``backbone.body...``), and the share of
        held-out crops that are named right, 0..1.

    Raises:
        UserError: no object outside the held-out images.
    """
    torch.manual_seed(seed)
    crops, labels, image = _crops(dataset)
    training = torch.nonzero(image < len(dataset) - held_out).flatten()
    testing = torch.nonzero(image >= len(dataset) - held_out).flatten()
    if not len(training):
        raise UserError(f"{dataset.name}: no object to pretrain on besides the {held_out} held-out images")
    backbone = Backbone(config.backbone)
    classifier = nn.Linear(body_channels(config.backbone)[-1], len(dataset.classes))
    network = nn.ModuleList((backbone.body, classifier)).train()
    if config.solver.channels_last:
        network = network.to(memory_format=torch.channels_last)
    steps = epochs * -(-len(training) // batch_size)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)

    def logits(batch: Tensor) -> Tensor:
        with environment.autocast(torch.device("cpu"), config.solver.precision):
            return classifier(backbone.body_maps(normalise(crops[batch].float() / 255))[-1].mean(dim=(2, 3)))

    for batch in progress(_batches(training, batch_size, epochs), total=steps, desc="crop pretraining"):
        loss = F.cross_entropy(logits(batch).float(), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        right = [(logits(part).argmax(dim=1) == labels[part]).float() for part in testing.split(512)]
    accuracy = torch.cat(right).mean().item() if right else float("nan")
    return {f"backbone.body.{key}": value for key, value in backbone.body.state_dict().items()}, accuracy


def _crops(dataset: DetectionDataset) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 crops [K, 3, 48, 48], classes [K] from 0, and the number of the image each is from, [K]."""
    crops, labels, image = [], [], []
    for number in progress(range(len(dataset)), desc="cutting crops"):
        pixels, target = dataset[number]
        boxes = target["boxes"]
        margin = (boxes[:, 2:] - boxes[:, :2]) * _MARGIN
        rois = torch.cat((torch.zeros(len(boxes), 1), boxes[:, :2] - margin, boxes[:, 2:] + margin), dim=1)
        crops.append((roi_align(pixels[None], rois, CROP, aligned=True) * 255).round().to(torch.uint8))
        labels.append(target["labels"] - 1)
        image.append(torch.full_like(target["labels"], number))
    return torch.cat(crops), torch.cat(labels), torch.cat(image)


def _batches(index: Tensor, size: int, epochs: int) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from index[torch.randperm(len(index))].split(size)
