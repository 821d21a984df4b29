"""Is my data sane? Statistics, bad boxes, unreadable images and drawn samples of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.v2.functional import to_dtype, to_pil_image
from torchvision.utils import draw_bounding_boxes

from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.progress import progress

PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")
"""Colours of the classes in drawn samples, told apart by colour-blind readers too."""


@dataclass(frozen=True)
class Report:
    """What `check` found. Lengths in pixels; quantiles are (least, 10 %, median, 90 %, most)."""

    name: str
    images: int
    objects: int
    crowd: int
    """Objects that evaluation ignores and training never sees."""
    classes: dict[str, int]
    """Objects per class, in label order."""
    width: tuple[float, ...]
    height: tuple[float, ...]
    objects_per_image: tuple[float, ...]
    empty_images: int
    box_side: tuple[float, ...]
    """Quantiles of the square root of the box area."""
    box_aspect: tuple[float, ...]
    """Quantiles of width over height."""
    small_medium_large: tuple[float, float, float]
    """Shares of the objects; the parting side lengths are `area_limits`."""
    area_limits: tuple[float, float]
    at_border: float
    """Share of the boxes within one pixel of the border: candidates for incomplete objects."""
    clipped: int
    dropped: list[tuple[int, str]]
    """(image id, reason) of the boxes left out."""
    decoded: int
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    """(image id, reason) of the images that could not be decoded."""

    @property
    def sane(self) -> bool:
        """No bad box and no unreadable image."""
        return not self.dropped and not self.unreadable

    def text(self) -> str:
        """The report as a table to read in a terminal."""
        low, high = self.area_limits
        small, medium, large = (f"{100 * share:.0f} %" for share in self.small_medium_large)
        unused = [name for name, count in self.classes.items() if not count]
        lines = [
            ("data", self.name),
            ("images", f"{self.images}, {self.empty_images} of them without an object"),
            ("objects", f"{self.objects}" + (f" and {self.crowd} ignored (crowd or difficult)" if self.crowd else "")),
            ("", "least / 10 % / median / 90 % / most"),
            ("image width", _row(self.width)),
            ("image height", _row(self.height)),
            ("objects per image", _row(self.objects_per_image)),
            ("box side (sqrt of area)", _row(self.box_side)),
            ("box width / height", _row(self.box_aspect)),
            ("small, medium, large", f"{small}, {medium}, {large} (parted at {low:g} and {high:g} px)"),
            ("boxes at the border", f"{100 * self.at_border:.0f} %"),
            ("boxes clipped", f"{self.clipped}"),
            ("boxes dropped", f"{len(self.dropped)}"),
            *(("", f"image {image_id}: {reason}") for image_id, reason in self.dropped[:10]),
            ("images decoded", f"{self.decoded}, {len(self.unreadable)} unreadable"),
            *(("", f"image {image_id}: {reason}") for image_id, reason in self.unreadable[:10]),
            ("classes", f"{len(self.classes)}" + (f", {len(unused)} of them without an object" if unused else "")),
            *(("", f"{label:>3} {name}: {count}") for label, (name, count) in enumerate(self.classes.items(), start=1)),
        ]
        return "\n".join(f"{key:<24} {value}" for key, value in lines)


def check(dataset: DetectionDataset, samples: int | None = None) -> Report:
    """Look at a data set before training on it.

    Args:
        samples: how many images to decode, spread over the data set; None decodes all of them.
    """
    sizes = np.array([dataset.size(index) for index in range(len(dataset))], dtype=float)
    targets = [dataset.target(index) for index in range(len(dataset))]
    counts = np.array([len(target["labels"]) for target in targets])
    boxes = torch.cat([target["boxes"] for target in targets]).double().numpy()
    labels = torch.cat([target["labels"] for target in targets]).numpy()
    areas = torch.cat([target["area"] for target in targets]).double().numpy()
    sides = boxes[:, 2:] - boxes[:, :2]
    limits = np.repeat(sizes, counts, axis=0)
    at_border = (boxes[:, :2] <= 1).any(axis=1) | (boxes[:, 2:] >= limits - 1).any(axis=1)
    low, high = dataset.area_limits
    per_class = np.bincount(labels, minlength=len(dataset.classes) + 1)[1:]
    chosen = _spread(len(dataset), samples)
    return Report(
        name=dataset.name,
        images=len(dataset),
        objects=len(labels),
        crowd=sum(entry["iscrowd"] for entry in dataset.coco["annotations"]),
        classes=dict(zip(dataset.classes, per_class.tolist(), strict=True)),
        width=_quantiles(sizes[:, 0]),
        height=_quantiles(sizes[:, 1]),
        objects_per_image=_quantiles(counts),
        empty_images=int((counts == 0).sum()),
        box_side=_quantiles(np.sqrt(sides.prod(axis=1))),
        box_aspect=_quantiles(sides[:, 0] / sides[:, 1]),
        small_medium_large=(
            float((areas < low**2).mean()),
            float(((areas >= low**2) & (areas < high**2)).mean()),
            float((areas >= high**2).mean()),
        ),
        area_limits=dataset.area_limits,
        at_border=float(at_border.mean()),
        clipped=len(dataset.clipped),
        dropped=list(dataset.dropped),
        decoded=len(chosen),
        unreadable=_unreadable(dataset, chosen),
    )


def untrained(training: DetectionDataset, validation: DetectionDataset) -> list[str]:
    """Names of the classes with objects in `validation` and none in `training`: nobody can learn them."""
    return [validation.classes[label - 1] for label in sorted(_labels(validation) - _labels(training))]


def _labels(dataset: DetectionDataset) -> set[int]:
    """The labels that objects have, crowds aside."""
    used = {entry["category_id"] for entry in dataset.coco["annotations"] if not entry["iscrowd"]}
    return {label for label, category in dataset.label_to_category.items() if category in used}


def draw_samples(dataset: DetectionDataset, out_dir: str | Path, n: int = 8) -> list[Path]:
    """Draw `n` images, spread over the data set, with boxes and class names.

    Small images are enlarged so that the names can be read. A crowd object is not drawn.

    Returns:
        The PNG files, named after the image ids.

    Raises:
        UserError: an image cannot be decoded or the folder cannot be written.
    """
    paths = []
    for index in _spread(len(dataset), n):
        image, target = dataset[index]
        zoom = max(1, round(384 / max(image.shape[-2:])))
        pixels = to_dtype(image, torch.uint8, scale=True)
        pixels = pixels.repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2)
        labels = target["labels"].tolist()
        if labels:
            pixels = draw_bounding_boxes(
                pixels,
                target["boxes"] * zoom,
                labels=[dataset.classes[label - 1] for label in labels],
                colors=[PALETTE[(label - 1) % len(PALETTE)] for label in labels],
                width=2,
            )
        path = Path(out_dir) / f"sample_{target['image_id']:06d}.png"
        paths.append(write_atomic(path, partial(to_pil_image(pixels).save, format="PNG")))
    return paths


def _unreadable(dataset: DetectionDataset, indices: Sequence[int]) -> list[tuple[int, str]]:
    broken = []
    for index in progress(indices, desc="decoding images", unit="image"):
        try:
            dataset[index]
        except UserError as error:
            broken.append((dataset.image_ids[index], str(error)))
    return broken


def _spread(count: int, wanted: int | None) -> list[int]:
    """At most `wanted` different positions, evenly over 0..count-1."""
    if wanted is None or wanted >= count:
        return list(range(count))
    return [int(position) for position in np.linspace(0, count - 1, wanted)] if wanted else []


def _quantiles(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, [0, 0.1, 0.5, 0.9, 1]))


def _row(quantiles: Sequence[float]) -> str:
    return " / ".join(f"{value:.4g}" for value in quantiles)
