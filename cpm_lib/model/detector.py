"""What all detectors share: images in, detections out, in torchvision's data contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from cpm_lib import boxes as box_ops
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model.backbone import Backbone
from cpm_lib.model.losses import Mean
from cpm_lib.model.losses import normalise as normalise_losses
from cpm_lib.model.proposals import Proposals
from cpm_lib.model.regions import Batch, Regions
from cpm_lib.model.sampling import Sampling

# ImageNet statistics of torchvision's weights (RGB, 0..1) and of the caffe ones (BGR, 0..255).
_RGB = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))

Target = dict[str, Any]
Detection = dict[str, Tensor]


class Detector(nn.Module, ABC):
    """Base of all detectors: backbone, proposals, and the way from images to a batch and back.

    `model(images, targets)` in training mode takes images as the data pipeline made them (resized and
    flipped) and returns a dict of losses. In evaluation mode `model(images)` takes images of any size,
    resizes them itself and returns one dict per image, boxes in pixels of the image given.

    Images are float [3, H, W] RGB in 0..1; targets are dicts with `boxes` [N, 4] xyxy in pixels, `labels`
    int64 [N] in 1..num_classes-1 and optionally `image_id`.
    """

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"num_classes is {num_classes}: it counts the background, so it is at least 2")
        self.config, self.num_classes = config, num_classes
        self.sampling = Sampling()
        self.backbone = Backbone(config.backbone)
        if config.solver.channels_last:
            # The backbone only: on CPUs the grid branch's small maps and GroupNorms take twice as long that way.
            self.backbone = self.backbone.to(memory_format=torch.channels_last)
        self.proposals = Proposals(config, self.sampling)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> dict[str, Tensor] | list[Detection]:
        batch = self.prepare(images, targets)
        features = self.backbone(batch.pixels)
        proposals, losses = self.proposals(features, batch)
        if self.training:
            losses |= self.train_heads(features, proposals, batch)
            self.sampling.advance()
            return normalise_losses(losses, self.config.solver.normalise)
        return self.restore(self.detect(features, proposals, batch), batch, images)

    @abstractmethod
    def train_heads(self, features: list[Tensor], proposals: Regions, batch: Batch) -> dict[str, Mean]:
        """All losses but those of the proposals."""

    @abstractmethod
    def detect(self, features: list[Tensor], proposals: Regions, batch: Batch) -> list[Detection]:
        """Detections of each image in network pixels, unsorted and not clipped."""

    def most_detections(self) -> int | None:
        """How many detections an image keeps; None: all."""
        return self.config.classification.detections_per_image

    def train(self, mode: bool = True) -> Detector:
        super().train(mode)
        # Frozen parts keep their running statistics, whichever norm they use.
        for module in self.backbone.body.children():
            if not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self

    def prepare(self, images: list[Tensor], targets: list[Target] | None) -> Batch:
        """Check, resize (evaluation only), normalise and pad.

        Raises:
            UserError: no image, wrong image shape, missing or malformed targets (with the image id).
        """
        if not images:
            raise UserError("the detector got an empty list of images")
        for image in images:
            if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape or not image.is_floating_point():
                raise UserError(
                    f"images must be float [3, height, width] in 0..1, got {image.dtype} {tuple(image.shape)}"
                )
        device = next(self.parameters()).device
        images = [image.to(device, non_blocking=True) for image in images]
        if self.training:
            if targets is None or len(targets) != len(images):
                raise UserError("training needs one target per image")
            ids = [int(target.get("image_id", number)) for number, target in enumerate(targets)]
            gt_boxes, gt_labels = zip(
                *(check_target(t, i, self.num_classes, device) for t, i in zip(targets, ids, strict=True)), strict=True
            )
        else:
            images = [self.resize(image) for image in images]
            ids = list(range(len(images)))
            gt_boxes = gt_labels = ()
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        return Batch(self.pad(images), sizes, ids, list(gt_boxes), list(gt_labels))

    def resize(self, image: Tensor) -> Tensor:
        """Short side to `input.test_size`, long side at most `input.max_size`; the rule of the training data."""
        height, width = image.shape[-2:]
        config = self.config.input
        if self.config.conventions.authors_resize:
            return resize_unfiltered(image, authors_factor((height, width), config.test_size, config.max_size))
        factor = min(config.test_size / min(height, width), config.max_size / max(height, width))
        size = [max(1, int(height * factor)), max(1, int(width * factor))]
        return image if size == [height, width] else vision.resize(image, size, antialias=True)

    def pad(self, images: list[Tensor]) -> Tensor:
        """Normalised images on one canvas [B, 3, H, W] whose sides divide by `input.size_divisor`."""
        caffe = self.config.backbone.caffe
        black_border = self.config.conventions.pad_before_normalise and not self.training
        divisor = self.config.input.size_divisor
        height, width = (-(-max(image.shape[axis] for image in images) // divisor) * divisor for axis in (1, 2))
        canvas = []
        for image in images:
            border = (0, width - image.shape[2], 0, height - image.shape[1])
            if black_border:
                canvas.append(normalise(F.pad(image, border), caffe))
            else:
                canvas.append(F.pad(normalise(image, caffe), border))
        pixels = torch.stack(canvas)
        return pixels.contiguous(memory_format=torch.channels_last) if self.config.solver.channels_last else pixels

    def restore(self, detections: list[Detection], batch: Batch, images: list[Tensor]) -> list[Detection]:
        """Best detections of each image, clipped, in pixels of the image that was given."""
        limit, restored = self.most_detections(), []
        for found, size, image in zip(detections, batch.sizes, images, strict=True):
            # Not a number comes last (a raw ISM output below zero), as COCO's evaluation sorts it.
            best = found["scores"].nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[:limit]
            found = {key: value[best] for key, value in found.items()}
            # y and x factors of the resizing, from the true integer sizes
            factors = (image.shape[1] / size[0], image.shape[2] / size[1])
            scale = torch.tensor([factors[1], factors[0]] * 2, device=found["boxes"].device)
            for key in ("boxes", "stage_boxes", "proposals"):
                if key in found:
                    boxes = found[key]
                    if self.config.conventions.clip_boxes:
                        boxes = box_ops.clip(boxes, size, self.config.conventions.pixel_plus_one)
                    found[key] = boxes * scale
            restored.append(found)
        return restored


def normalise(images: Tensor, caffe: bool = False) -> Tensor:
    """RGB images [..., 3, H, W] in 0..1 as the backbone wants them: mean 0, and BGR of 0..255 if `caffe`."""
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (_CAFFE if caffe else _RGB))
    return ((images.flip(-3) * 255 if caffe else images) - mean) / std


def authors_factor(size: tuple[int, int], short_side: int, max_size: int) -> float:
    """The authors' factor at test for an image of `size` (height, width) (facts 1.3)."""
    factor = short_side / min(size)
    return max_size / max(size) if round(factor * max(size)) > max_size else factor


def resize_unfiltered(image: Tensor, factor: float) -> Tensor:
    """[C, H, W] to the rounded multiple of its size as OpenCV does it: bilinear, cells `1 / factor` apart."""
    for axis in (1, 2):
        last = image.shape[axis] - 1
        cells = torch.arange(max(1, round((last + 1) * factor)), dtype=torch.float64, device=image.device)
        at = ((cells + 0.5) / factor - 0.5).clamp(0, last)
        low = at.floor().long()
        share = (at - low).to(image.dtype).view(-1, *[1] * (2 - axis))
        image = (
            image.index_select(axis, low) * (1 - share) + image.index_select(axis, (low + 1).clamp(max=last)) * share
        )
    return image


def check_target(target: Target, image_id: int, num_classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Boxes [N, 4] and labels [N] of one target on the device.

    Raises:
        UserError: naming the image and the first bad box or label.
    """
    where = f"image {image_id}"
    try:
        boxes, labels = target["boxes"], target["labels"]
    except KeyError as error:
        raise UserError(f"{where}: the target has no {error}") from error
    if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise UserError(
            f"{where}: boxes must be [N, 4] and labels [N], got {tuple(boxes.shape)} and {tuple(labels.shape)}"
        )
    # Checked where the data pipeline left them, usually the CPU, so that a GPU need not wait for the answer.
    fine = (boxes[:, 2:] > boxes[:, :2]).all() & ((labels >= 1) & (labels < num_classes)).all()
    if not bool(fine & boxes.isfinite().all()):
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            if not (box[2] > box[0] and box[3] > box[1]) or any(abs(v) == float("inf") for v in box):
                raise UserError(f"{where}: box {box} has no positive width and height; mend or drop it")
            if not 1 <= label < num_classes:
                raise UserError(f"{where}: label {label} is not in 1..{num_classes - 1}")
    boxes = boxes.to(device, torch.float32, non_blocking=True).as_subclass(Tensor)
    return boxes, labels.to(device, torch.int64, non_blocking=True)
