"""A dozen small images with everything that is odd about COCO, in the layout of COCO 2017."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = {1: "person", 13: "stop sign", 44: "bottle", 90: "toothbrush"}
"""Category ids with gaps; there is no toothbrush in any image."""
LANDSCAPE, PORTRAIT = (96, 64), (64, 96)
# id: (width, height), kind of JPEG
IMAGES: dict[int, tuple[tuple[int, int], str]] = {
    9: (LANDSCAPE, "RGB"),
    25: (PORTRAIT, "L"),
    30: (LANDSCAPE, "CMYK"),
    34: (PORTRAIT, "turned"),  # annotated as shown
    36: (LANDSCAPE, "turned, annotated as stored"),
    42: (LANDSCAPE, "RGB"),  # no object
    49: (PORTRAIT, "RGB"),  # no object
    61: (LANDSCAPE, "RGB"),  # a crowd and nothing else
    64: (LANDSCAPE, "RGB"),  # a crowd, and an object in it
    71: (LANDSCAPE, "RGB"),  # tiny boxes
    74: (LANDSCAPE, "RGB"),  # boxes without height, or reaching over the border
}
# (image, category, box, is crowd)
OBJECTS: list[tuple[int, int, list[float], int]] = [
    (9, 1, [10.5, 8.25, 40.0, 44.5], 0),
    (9, 44, [60.0, 20.0, 20.0, 33.3], 0),
    (25, 13, [5.0, 30.0, 50.0, 40.0], 0),
    (30, 1, [0.0, 0.0, 96.0, 64.0], 0),
    (34, 44, [8.0, 50.0, 40.0, 40.0], 0),
    (36, 44, [50.0, 8.0, 40.0, 40.0], 0),
    (61, 1, [0.0, 10.0, 90.0, 50.0], 1),
    (64, 1, [20.0, 10.0, 70.0, 50.0], 1),
    (64, 1, [30.0, 15.0, 20.0, 40.0], 0),
    (71, 13, [30.0, 30.0, 1.0, 1.0], 0),
    (71, 13, [50.0, 40.0, 0.6, 9.0], 0),
    (71, 44, [95.0, 63.0, 1.0, 1.0], 0),
    (74, 1, [20.0, 20.0, 30.0, 0.0], 0),
    (74, 1, [60.0, 10.0, 36.02, 50.0], 0),
    (74, 13, [10.0, 30.0, 30.0, 25.0], 0),
]


def write(root: Path, split: str = "val") -> Path:
    """Images in root/SPLIT2017 and their annotations, whose path is returned."""
    folder = root / f"{split}2017"
    folder.mkdir(parents=True)
    for image_id, (size, kind) in IMAGES.items():
        _write_image(folder / f"{image_id:012d}.jpg", size, kind)
    annotations = root / "annotations" / f"instances_{split}2017.json"
    annotations.parent.mkdir(exist_ok=True)
    annotations.write_text(json.dumps(content()))
    return annotations


def content() -> dict[str, Any]:
    annotations = []
    for number, (image_id, category, (x, y, w, h), crowd) in enumerate(OBJECTS, start=1):
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(
            {
                "id": 900_000_000 + number,
                "image_id": image_id,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": round(0.8 * w * h, 4),  # COCO's is that of the mask
                "iscrowd": crowd,
                "segmentation": _run_lengths([x, y, w, h], IMAGES[image_id][0]) if crowd else polygon,
            }
        )
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": width, "height": height}
            for image_id, ((width, height), _) in reversed(IMAGES.items())
        ],
        "annotations": annotations,
        "categories": [{"id": category, "name": name} for category, name in CATEGORIES.items()],
    }


def _run_lengths(box: list[float], size: tuple[int, int]) -> dict[str, Any]:
    """Uncompressed run lengths, column by column, beginning with background: the masks of COCO's crowds."""
    x, y, w, h = (int(value) for value in box)
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[y : y + h, x : x + w] = 1
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat[1:]))
    counts = np.diff(np.concatenate([[-1], ends])).tolist()
    return {"counts": counts if flat[1] == 0 else [0, *counts], "size": [size[1], size[0]]}


def _write_image(path: Path, size: tuple[int, int], kind: str) -> None:
    """Noise with a white quarter top left, as it is shown; `turned` ones are stored a quarter turn back."""
    pixels = np.random.default_rng(size[0]).integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 255
    image = Image.fromarray(pixels)
    if kind.startswith("turned"):
        exif = Image.Exif()
        exif[0x0112] = 6
        if kind == "turned":
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(path, quality=95, exif=exif)
    else:
        image.convert(kind).save(path, quality=95)
