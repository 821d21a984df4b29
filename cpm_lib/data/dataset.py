"""The data set every source becomes: a cleaned COCO dict, a folder of images, torchvision's targets."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpm_lib.data.images import header_size, read_image
from cpm_lib.errors import UserError
from cpm_lib.files import listing

COCO_AREA_LIMITS = (32.0, 96.0)
"""Side lengths in pixels that part small, medium and large objects in COCO."""


class DetectionDataset(torch.utils.data.Dataset[tuple[Tensor, dict[str, Any]]]):
    """Images with boxes, following torchvision's detection contract.

    Args:
        name: the source text, e.g. ``shapes:quick:val``; only shown.
        coco: a COCO dict (images, annotations, categories). ``bbox`` is xywh in continuous pixels.
            Masks (``segmentation``) and null fields are forgotten, all other extra fields are kept.
        folder: where ``file_name`` of an image starts.
        where: the annotation file, named in messages.
        area_limits: side lengths in pixels; small is area < low**2, large is area >= high**2.
        strict: refuse the data set for a bad box instead of dropping the box.
        judge_as_given: evaluate against all boxes as `coco` has them, as COCO's own evaluation does.

    Boxes partly outside their image are clipped. Boxes without area, or wholly outside, are dropped
    and listed in `dropped`. Labels are 1..len(classes) by ascending category id; 0 is background.

    Raises:
        UserError: an image is absent, ids are unknown or doubled, there is no object at all, or
            `strict` and a box is bad.
    """

    def __init__(
        self,
        name: str,
        coco: Mapping[str, Any],
        folder: str | Path,
        *,
        where: str | Path,
        area_limits: tuple[float, float] = COCO_AREA_LIMITS,
        strict: bool = False,
        judge_as_given: bool = False,
    ) -> None:
        self.name = name
        self.where = str(where)
        self.folder = Path(folder)
        self.area_limits = area_limits
        self.dropped: list[tuple[int, str]] = []
        """(image id, reason) of every box left out."""
        self.clipped: list[int] = []
        """The image id of every box that reached over the border, once per box."""
        categories = self._categories(coco)
        self.classes = tuple(str(category["name"]) for category in categories)
        self.label_to_category = {label: category["id"] for label, category in enumerate(categories, start=1)}
        self._images = self._with_files(coco)
        self.image_ids: list[int] = [image["id"] for image in self._images]
        self.judged: list[dict[str, Any]] = []
        """The annotations that evaluation compares with: those of `coco`, or with `judge_as_given` neither clipped
        nor without those in `dropped` (but for boxes that are not numbers)."""
        annotations = self._clean(coco.get("annotations", []), judge_as_given)
        if strict and self.dropped:
            image_id, reason = self.dropped[0]
            raise UserError(
                f"{where}: {len(self.dropped)} bad boxes, the first in image {image_id}: {reason}; "
                "mend them or leave out --strict to drop them"
            )
        self._coco = {
            "info": coco.get("info", {}),
            "images": self._images,
            "annotations": annotations,
            "categories": categories,
        }
        self._pack(annotations)

    @property
    def coco(self) -> dict[str, Any]:
        """The cleaned COCO dict; crowd objects stay in it with ``iscrowd`` 1, so evaluation ignores them."""
        return self._coco

    def __len__(self) -> int:
        return len(self._images)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels, as annotated, without decoding the image."""
        image = self._images[index]
        return image["width"], image["height"]

    def file(self, index: int) -> str:
        """Path of the image, for messages and links."""
        return str(self.folder / self._images[index]["file_name"])

    def fingerprint(self) -> str:
        """sha256 (hexadecimal) over annotations, image list and generator knobs, not over the path."""
        text = json.dumps(self._coco, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def target(self, index: int) -> dict[str, Any]:
        """The second half of ``self[index]`` without decoding the image."""
        rows = slice(int(self._starts[index]), int(self._starts[index + 1]))
        labels = self._labels[rows].clone()
        return {
            "boxes": self._boxes[rows].clone(),
            "labels": labels,
            "image_id": self.image_ids[index],
            "iscrowd": torch.zeros_like(labels),
            "area": self._areas[rows].clone(),
        }

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Image float32 [3, H, W] RGB in 0..1 and target, without augmentation.

        The target has boxes float32 [N, 4] xyxy in pixels, labels int64 [N], image_id, iscrowd
        int64 [N] (all 0: crowd objects are no training targets) and area float32 [N]; N may be 0.

        Raises:
            UserError: the image cannot be decoded, or its size is not the annotated one.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        try:
            image = read_image(self.file(index), self.size(index))
        except UserError as error:
            raise UserError(f"{error} (image {self.image_ids[index]} of {self.name})") from error
        return image, self.target(index)

    def _categories(self, coco: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            categories = sorted(coco["categories"], key=lambda category: int(category["id"]))
            doubled = _doubled(category["id"] for category in categories)
            names = [category["name"] for category in categories]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.where}: 'categories' needs a list of {{id, name}} ({error!r})") from error
        if doubled is not None:
            raise UserError(f"{self.where}: category id {doubled} appears twice; give every category its own id")
        other = next((entry["id"] for entry in categories if not isinstance(entry["id"], (int, float))), None)
        if other is not None:
            raise UserError(f"{self.where}: category id {other!r} is not a number; write it without quotation marks")
        if not names:
            raise UserError(f"{self.where}: 'categories' is empty; name at least one class")
        return [dict(category) for category in categories]

    def _with_files(self, coco: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The image records with integer ids and sizes, after checking that every file is there."""
        images = [dict(image) for image in coco.get("images", [])]
        if not images:
            raise UserError(f"{self.where}: no image listed; name at least one")
        listings: dict[Path, set[str]] = {}
        absent = []
        for image in images:
            if not isinstance(image.get("id"), int) or not isinstance(image.get("file_name"), str):
                raise UserError(f"{self.where}: an image needs an integer 'id' and a 'file_name', got {_short(image)}")
            path = self.folder / image["file_name"]
            # One listing per folder instead of one system call per image: COCO has 118,000 of them.
            if path.parent not in listings:
                listings[path.parent] = set(listing(path.parent))
            if path.name not in listings[path.parent]:
                absent.append(image)
        if absent:
            first = absent[0]
            raise UserError(
                f"{self.where}: {len(absent)} of {len(images)} images are absent, the first is "
                f"{self.folder / first['file_name']} (image {first['id']}); copy them or take them off the list"
            )
        doubled = _doubled(image["id"] for image in images)
        if doubled is not None:
            raise UserError(f"{self.where}: image id {doubled} appears twice; give every image its own id")
        for image in images:
            if not image.get("width") or not image.get("height"):
                image["width"], image["height"] = header_size(self.folder / image["file_name"])
            elif not all(_is_length(image[side]) for side in ("width", "height")):
                raise UserError(
                    f"{self.where}: image {image['id']} ({image['file_name']}) is {image['width']!r} wide and "
                    f"{image['height']!r} high; mend its size in pixels, or take it out: then the picture tells it"
                )
        return images

    def _clean(self, annotations: Iterable[Mapping[str, Any]], judge_as_given: bool) -> list[dict[str, Any]]:
        """The annotations with boxes inside their images; fills `judged`, `dropped` and `clipped`."""
        sizes = {image["id"]: (image["width"], image["height"]) for image in self._images}
        known = set(self.label_to_category.values())
        kept = []
        for annotation in annotations:
            image_id, category = annotation.get("image_id"), annotation.get("category_id")
            if not isinstance(image_id, int) or image_id not in sizes:
                raise UserError(
                    f"{self.where}: annotation {annotation.get('id')} is of image {image_id}, "
                    "which is not in 'images'; add the image or take the annotation out"
                )
            if not isinstance(category, (int, float)) or category not in known:
                raise UserError(
                    f"{self.where}: annotation {annotation.get('id')} of image {image_id} has category id "
                    f"{category!r}, which is not in 'categories' ({_short(sorted(known))}); add it or mend the id"
                )
            box = annotation.get("bbox")
            clipped, reason = clip_box(box, *sizes[image_id])
            entry = {key: value for key, value in annotation.items() if key != "segmentation" and value is not None}
            if not all(isinstance(entry.get(key, 0), (int, float)) for key in ("iscrowd", "area")):
                raise UserError(
                    f"{self.where}: annotation {annotation.get('id')} of image {image_id} has iscrowd "
                    f"{entry.get('iscrowd')!r} and area {entry.get('area')!r}; write numbers or leave them out"
                )
            entry["iscrowd"] = int(entry.get("iscrowd", 0) != 0)
            as_given = judge_as_given and bool(reason)
            if as_given and sum(map(math.isfinite, _numbers(box))) == 4:
                self.judged.append(dict(entry))
            if clipped is None:
                self.dropped.append((image_id, reason))
                continue
            if reason:
                self.clipped.append(image_id)
            entry["bbox"] = clipped
            entry.setdefault("area", clipped[2] * clipped[3])
            kept.append(entry)
            if not as_given:
                self.judged.append(entry)
        if all(entry["iscrowd"] for entry in kept):
            note = f" ({len(self.dropped)} bad boxes were dropped)" if self.dropped else ""
            raise UserError(f"{self.where}: no object in {len(self._images)} images{note}; is it the right file?")
        # pycocotools takes the id 0 for "not matched" and overwrites doubled ids without a word.
        ids = [entry.get("id") for entry in kept]
        if not all(isinstance(i, int) and i > 0 for i in ids) or len(set(ids)) < len(ids):
            for number, entry in enumerate(kept, start=1):
                entry["id"] = number
        return kept

    def _pack(self, annotations: list[dict[str, Any]]) -> None:
        """Training targets as flat tensors sorted by image: cheap to index, shared between workers."""
        position = {image_id: index for index, image_id in enumerate(self.image_ids)}
        label = {category: label for label, category in self.label_to_category.items()}
        objects = [entry for entry in annotations if not entry["iscrowd"]]
        objects.sort(key=lambda entry: position[entry["image_id"]])
        counts = np.bincount([position[entry["image_id"]] for entry in objects], minlength=len(self))
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        xywh = torch.tensor([entry["bbox"] for entry in objects], dtype=torch.float64).reshape(-1, 4)
        self._boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1).float()
        self._labels = torch.tensor([label[entry["category_id"]] for entry in objects], dtype=torch.int64)
        self._areas = torch.tensor([float(entry["area"]) for entry in objects], dtype=torch.float32)


def clip_box(box: Any, width: int, height: int) -> tuple[list[float] | None, str]:
    """An xywh box cut at the image border.

    Returns:
        (box, "") if it lay inside, (clipped box, reason) if it reached over, (None, reason) if bad.
    """
    numbers = _numbers(box)
    if not numbers:
        return None, f"bbox {_short(box)} is not four numbers"
    if not all(map(math.isfinite, numbers)):
        return None, f"bbox {_short(box)} is not finite"
    x, y, w, h = numbers
    if w < 0 or h < 0:
        return None, f"bbox {_short(box)} is inverted"
    if w == 0 or h == 0:
        return None, f"bbox {_short(box)} has no area"
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x2 <= x1 or y2 <= y1:
        return None, f"bbox {_short(box)} is outside the image of {width} x {height}"
    # Rounding in x + w must not count as reaching over the border, hence the small tolerance.
    if max(x1 - x, y1 - y, x + w - x2, y + h - y2) <= 1e-6:
        return [x, y, w, h], ""
    return [x1, y1, x2 - x1, y2 - y1], "reaches over the border"


def _numbers(box: Any) -> list[float]:
    """The four numbers of a box; empty if it is anything else."""
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError):
        return []
    return [x, y, w, h]


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0 and value % 1 == 0


def _doubled(values: Iterable[Any]) -> Any:
    """The first value that appears twice, or None."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _short(value: Any, limit: int = 80) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
