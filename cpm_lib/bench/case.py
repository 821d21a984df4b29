"""What is timed: one detector, one kind of work, one size; and the passes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpm_lib.bench import peer
from cpm_lib.config import Config
from cpm_lib.environment import has_bfloat16
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.model.classification import RoIClassifier
from cpm_lib.training import optimisation

CLASSES = 81
"""COCO's, with the background."""
BRANCH_GAIN = 0.3
"""Gain of the last norm of a residual block. With 1 the signal of an untrained ResNet doubles from block to block."""


Work = Literal["inference", "training"]


@dataclass(frozen=True)
class Case:
    """Everything a fresh process needs to do the same work; made by `forced`."""

    name: str
    config: Config
    work: Work
    size: tuple[int, int]
    """(height, width) of the images, in pixels; no image is resized."""
    rois: int
    """Inference: detections per image, and RoIs that enter each grid stage; training: positives per image."""
    batch: int
    device: str
    bf16: bool
    torchvision: bool = False
    """torchvision's Faster R-CNN with the sizes of `config` instead of the detector that `config` describes."""


def forced(
    config: Config,
    work: Work,
    rois: int,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    device: str | torch.device = "cpu",
    precision: Literal["fp32", "bf16"] | None = None,
) -> Case:
    """A case in which exactly `rois` RoIs per image enter every grid stage, by settings alone.

    At test all proposals become candidates of one class (`tame` sees to that), NMS removes none, and the limit on
    RoIs and detections is `rois`. In training the images hold `rois` objects, which are among the proposals; at most
    `rois` positives enter stage 1, and later stages take the boxes that equal an object: the objects themselves.
    The learning rate is 0, so that every step does the same work.

    Args:
        name: default: the preset's.
        size: (height, width); default: short side and longest side of `config.input`.
        precision: default: that of `config.solver`, where the device is made for it.

    Raises:
        UserError: more RoIs than there are proposals, or than a training step samples as positives.
    """
    place, size = torch.device(device), size or (config.input.test_size, config.input.max_size)
    wanted = precision or ("bf16" if config.solver.precision == "bf16" and has_bfloat16(place) else "fp32")
    changes: dict[str, Any] = {"backbone.pretrained": False, "input.test_size": min(size), "input.max_size": max(size)}
    proposals = config.proposals.post_nms_test
    positives = int(config.classification.rois_per_image * config.classification.positive_fraction)
    if work == "inference":
        if rois > proposals:
            raise UserError(
                f"{config.preset}: {rois} RoIs per image, of {proposals} proposals; ask for fewer with --rois"
            )
        changes |= {"classification.score_threshold": 1e-6, "classification.nms_iou": 1.0}
        changes |= {"classification.detections_per_image": rois, "conventions.rois_at_test": rois}
    else:
        if rois > positives:
            raise UserError(
                f"{config.preset}: {rois} RoIs per image, of {positives} positives; ask for fewer with --rois"
            )
        changes |= {"grid.rois_per_image": rois, "conventions.gt_append": 1.0, "solver.lr": 0.0}
        if config.detector in ("cpm", "grid"):
            first, later = config.cascade.iou_thresholds[0], config.cascade.stages - 1
            changes["cascade.iou_thresholds"] = (first, *[1.0] * later)
    config = config.override(changes)
    return Case(name or config.preset, config, work, size, rois, batch, str(place), wanted == "bf16")


class Running:
    """A case with weights, images and targets in place; calling it does the work once.

    Random weights and images from fixed seeds.
    """

    def __init__(self, case: Case) -> None:
        self.case, self.device = case, torch.device(case.device)
        torch.manual_seed(0)
        config = case.config
        model = peer.build(config, CLASSES, case.size) if case.torchvision else build_model(config, CLASSES)
        tame(model, one_class=case.work == "inference")
        self.model = model.to(self.device).train(case.work == "training")
        generator = torch.Generator().manual_seed(0)
        self.images = [image.to(self.device) for image in random_images(case, generator)]
        self.targets = random_targets(case, generator)
        if case.torchvision:
            # Ours takes them as the data pipeline made them.
            self.targets = [{key: value.to(self.device) for key, value in target.items()} for target in self.targets]
        if case.work == "training":
            self.optimiser = optimisation.build_optimiser(self.model, config.solver)

    def held_mb(self) -> float:
        """What no image can change, in MB of 10^6 bytes: the weights, and in training gradients and the optimiser's
        moments: one with momentum, two with AdamW."""
        held, moments = 0, 2 if self.case.config.solver.optimiser == "adamw" else 1
        for weight in (*self.model.parameters(), *self.model.buffers()):
            copies = 2 + moments if self.case.work == "training" and weight.requires_grad else 1
            held += copies * weight.numel() * weight.element_size()
        return held / 1e6

    def __call__(self) -> Any:
        return self.step() if self.case.work == "training" else self.detect()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.case.bf16)

    def detect(self) -> list[dict[str, Tensor]]:
        """Images to detections."""
        with torch.inference_mode(), self.autocast():
            return self.model(self.images)

    def step(self) -> Mapping[str, Tensor]:
        """One training step: forward, backward, update; returns the losses."""
        self.optimiser.zero_grad(set_to_none=True)
        losses = self.forward()
        self.backward(losses)
        self.update()
        return losses

    def forward(self) -> Mapping[str, Tensor]:
        if not self.case.torchvision:
            self.model.sampling.set(0, 1)
        with self.autocast():
            return self.model(self.images, self.targets)

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        torch.stack([value.float() for value in losses.values()]).sum().backward()

    def update(self) -> None:
        solver = self.case.config.solver
        if solver.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), solver.clip_norm)
        self.optimiser.step()


@torch.no_grad()
def tame(model: nn.Module, one_class: bool) -> None:
    """Random weights as well-behaved as trained ones, so that boxes and scores stay in their usual range.

    With `one_class` every RoI gets about 0.5 for class 1 and next to nothing for the others.
    """
    for block in model.modules():
        norm = getattr(block, "bn3", None) or (getattr(block, "bn2", None) if hasattr(block, "conv2") else None)
        if norm is not None:
            norm.weight.fill_(BRANCH_GAIN)
    if one_class:
        ours = [module.predictor for module in model.modules() if isinstance(module, RoIClassifier)]
        theirs = [module for name, module in model.named_modules() if name.endswith("box_predictor.cls_score")]
        for predictor in ours + theirs:
            predictor.bias.fill_(-20.0)
            predictor.bias[:2] = 0.0
            predictor.weight[torch.arange(CLASSES) != 1] = 0.0


def random_images(case: Case, generator: torch.Generator) -> list[Tensor]:
    """Float [3, H, W] in 0..1: large patches of colour under noise."""
    height, width = case.size
    images = []
    for _ in range(case.batch):
        patches = torch.rand(1, 3, -(-height // 32), -(-width // 32), generator=generator)
        patches = F.interpolate(patches, size=case.size, mode="bilinear")[0]
        images.append((patches + torch.rand(3, height, width, generator=generator)) / 2)
    return images


def random_targets(case: Case, generator: torch.Generator) -> list[dict[str, Tensor]]:
    """`rois` objects per image, sides between 1/25 and 1/2 of the short side, spread evenly in their logarithm."""
    extent = torch.tensor([case.size[1], case.size[0]], dtype=torch.float32)
    low, high = float(extent.min()) / 25, float(extent.min()) / 2
    targets = []
    for _ in range(case.batch):
        sides = low * (high / low) ** torch.rand(case.rois, 2, generator=generator)
        corners = (extent - sides) * torch.rand(case.rois, 2, generator=generator)
        labels = torch.randint(1, CLASSES, (case.rois,), generator=generator)
        boxes = torch.cat((corners, corners + sides), dim=1)
        targets.append({"boxes": boxes, "labels": labels})
    return targets
