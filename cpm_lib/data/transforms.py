"""Augmentation for training, from torchvision.transforms.v2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from cpm_lib.config import InputConfig

Target = dict[str, Any]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class TrainingTransform:
    """Resize to a random short side, flip left-right, keep boxes inside the image.

    Takes and returns image float32 [3, H, W] and target; boxes are xyxy in pixels of the image that goes
    with them, areas shrink and grow alike. No object is lost and the order stays. All random numbers
    come from torch's global generator.
    """

    def __init__(self, config: InputConfig) -> None:
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
        return new_image.as_subclass(Tensor), out


def training(config: InputConfig) -> Transform:
    """The augmentation of training: a short side of `train_sizes`, at most `max_size` long, and a flip.

    In evaluation there is none: the model resizes itself and answers in original pixels.
    """
    return TrainingTransform(config)
