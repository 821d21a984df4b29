"""Small data sets on disk, in COCO and VOC layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cpm_lib.data import DetectionDataset, write_shapes

Files = tuple[Path, Path]


def picture(width: int, height: int, value: int = 90) -> Image.Image:
    """A grey image with a white top-left quarter, so that rotations show."""
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[: height // 2, : width // 2] = 255
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes("smoke", tmp_path_factory.mktemp("shapes"), workers=0)


@pytest.fixture
def coco_dict() -> dict[str, Any]:
    """Two images, category ids with gaps and out of order, one crowd object, one empty image."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 3, "file_name": "b.png", "width": 30, "height": 40},
            {"id": 5, "file_name": "c.png", "width": 30, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [2, 3, 10, 12], "area": 77.0, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 4, "bbox": [0, 0, 30, 40], "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 4, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 1},
            {"id": 4, "image_id": 7, "category_id": 4, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0, "note": "x"},
        ],
        "categories": [{"id": 90, "name": "late"}, {"id": 4, "name": "early"}],
    }


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[[dict[str, Any]], Files]:
    """Writes images and annotations; returns (annotation file, image folder)."""

    def write(coco: dict[str, Any]) -> Files:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for image in coco["images"]:
            picture(image["width"], image["height"]).save(folder / image["file_name"])
        annotations = tmp_path / "ann.json"
        annotations.write_text(json.dumps(coco))
        return annotations, folder

    return write


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Three images; the class `zebra` appears only in the image outside of train."""
    root = tmp_path / "VOC"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    objects = {
        "one": [("dog", 1, 1, 10, 20, 0, 1), ("cat", 5, 6, 40, 30, 1, 0)],
        "two": [("dog", 30, 20, 48, 45, 0, 0)],
        "three": [("zebra", 2, 2, 9, 9, 0, 0)],
    }
    for stem, entries in objects.items():
        picture(40, 30).save(root / "JPEGImages" / f"{stem}.jpg")
        write_xml(root, stem, entries)
    (root / "ImageSets/Main/train.txt").write_text("two\none\n")
    (root / "ImageSets/Main/val.txt").write_text("three  1\n")
    return root


def write_xml(root: Path, stem: str, objects: list[tuple[Any, ...]], size: tuple[int, int] = (40, 30)) -> None:
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><truncated>{cut}</truncated><bndbox><xmin>{x1}"
        f"</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, difficult, cut in objects
    ]
    text = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{text}{''.join(parts)}</annotation>")


@pytest.fixture
def rewrite_xml(voc_root: Path) -> Callable[..., None]:
    return lambda stem, objects, size=(40, 30): write_xml(voc_root, stem, objects, size)


@pytest.fixture
def mixed(tmp_path: Path) -> DetectionDataset:
    """23 images, 9 of them portrait, image i with i % 3 boxes."""
    images, annotations = [], []
    for index in range(23):
        width, height = (24, 36) if index % 5 in (0, 3) else (36, 24)
        images.append({"id": index + 1, "file_name": f"{index}.png", "width": width, "height": height})
        picture(width, height, 5 * index).save(tmp_path / f"{index}.png")
        for number in range(index % 3):
            annotations.append({"image_id": index + 1, "category_id": 1, "bbox": [2 + number, 3, 9, 11]})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    return DetectionDataset("mixed", coco, tmp_path, where="mixed.json")
