"""Augmentation for training, from torchvision.transforms.v2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from cpm_lib import boxes as box_ops
from cpm_lib.config import Conventions, InputConfig

Target = dict[str, Any]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class TrainingTransform:
    """Resize to a random short side, flip left-right, keep boxes inside the image.

    Takes and returns image float32 [3, H, W] and target; boxes are xyxy in pixels of the image that goes
    with them, areas shrink and grow alike. No object is lost and the order stays. All random numbers
    come from torch's global generator.

    With `plus_one` the boxes returned include their last pixel, as the model then wants them, and objects
    that are not above one pixel wide and high are dropped.
    """

    def __init__(self, config: InputConfig, plus_one: bool = False) -> None:
        self.plus_one = plus_one
        self._steps = v2.Compose(
            [
                v2.RandomShortestSize(list(config.train_sizes), max_size=config.max_size),
                v2.RandomHorizontalFlip(config.flip),
                v2.ClampBoundingBoxes(),
            ]
        )

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        height, width = image.shape[-2:]
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(height, width))
        new_image, new_boxes = self._steps(tv_tensors.Image(image), boxes)
        new_height, new_width = new_image.shape[-2:]
        out = dict(target)
        out["boxes"] = new_boxes.as_subclass(Tensor)
        out["area"] = target["area"] * ((new_height * new_width) / (height * width))
        if self.plus_one:
            out["boxes"] = box_ops.to_last_pixel(out["boxes"])
            out = _without_empty(out)
        return new_image.as_subclass(Tensor), out


class AuthorsTransform:
    """The authors' resizing and flip (facts 1.2): Pillow on 8-bit images, sizes truncated.

    Takes and returns what `TrainingTransform` does.
    """

    def __init__(self, config: InputConfig, plus_one: bool) -> None:
        self.config, self.plus_one = config, plus_one

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        height, width = image.shape[-2:]
        boxes = target["boxes"]
        if self.plus_one:
            boxes = box_ops.clip(box_ops.to_last_pixel(boxes), (height, width), plus_one=True)
        choice = int(torch.randint(len(self.config.train_sizes), ()))
        new = authors_training_size((width, height), self.config.train_sizes[choice], self.config.max_size)
        image = resize_with_pillow(image, new)
        boxes = boxes * torch.tensor([new[0] / width, new[1] / height] * 2)
        if torch.rand(()) < self.config.flip:
            image, boxes = image.flip(-1), box_ops.flip(boxes, new[0], self.plus_one)
        area = target["area"] * (new[0] * new[1] / (width * height))
        return image, _without_empty({**target, "boxes": boxes, "area": area})


def _without_empty(target: Target) -> Target:
    """The target without objects of no width or height."""
    real = (target["boxes"][:, 2:] > target["boxes"][:, :2]).all(dim=1)
    return {key: value[real] if isinstance(value, Tensor) else value for key, value in target.items()}


def authors_training_size(size: tuple[int, int], short_side: int, max_size: int) -> tuple[int, int]:
    """The authors' (width, height) in training for an image of `size` (width, height)."""
    short, long = min(size), max(size)
    if long / short * short_side > max_size:
        short_side = round(max_size * short / long)
    if short == short_side:
        return size
    width, height = (short_side if side == short else int(short_side * side / short) for side in size)
    return width, height


def resize_with_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[3, H, W] in 0..1 to `size` (width, height) by Pillow's bilinear filter, antialiased, on 8-bit values."""
    if size == (image.shape[2], image.shape[1]):
        return image
    picture = F.to_pil_image((image * 255).round().to(torch.uint8)).resize(size, Image.Resampling.BILINEAR)
    return F.to_dtype(F.pil_to_tensor(picture), torch.float32, scale=True)


def training(config: InputConfig, conventions: Conventions | None = None) -> Transform:
    """The augmentation of training: a short side of `train_sizes`, at most `max_size` long, and a flip.

    In evaluation there is none: the model resizes itself and answers in original pixels.

    Args:
        conventions: `authors_resize` takes the authors' way; default: corrected.
    """
    conventions = conventions or Conventions()
    way = AuthorsTransform if conventions.authors_resize else TrainingTransform
    return way(config, conventions.pixel_plus_one)
