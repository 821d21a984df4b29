"""Reading data sets in Pascal VOC format."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Any

from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.files import listing
from cpm_lib.typed import nearest

_FOLDERS = ("Annotations", "JPEGImages", "ImageSets")


def open_voc(text: str, *, strict: bool = False) -> DetectionDataset:
    """Open ``ROOT[,SPLIT]`` (default split: train).

    ROOT holds Annotations/, JPEGImages/ and ImageSets/Main/SPLIT.txt, itself or in its only sub-folder
    that does. VOC counts pixels from 1 and includes the last one, so a box becomes x1-1, y1-1, x2, y2
    in continuous pixels. Classes are all names in Annotations, sorted, whatever the split. Objects
    marked ``difficult`` are kept as ``iscrowd`` 1: ignored by evaluation, never trained on.

    Raises:
        UserError: absent files, broken XML, or anything `DetectionDataset` refuses.
    """
    path, comma, split = text.rpartition(",")
    if not comma or Path(text).expanduser().is_dir():
        path, split = text, "train"
    root = _find_root(Path(path).expanduser())
    annotations = root / "Annotations"
    stems = [name[: -len(".xml")] for name in listing(annotations) if name.endswith(".xml")]
    identity = {stem: number for number, stem in enumerate(sorted(stems), start=1)}
    names = _read_split(root, split, identity)
    absent = [name for name in names if name not in identity]
    if absent:
        ending = os.path.splitext(absent[0])[0] in identity
        raise UserError(
            f"{annotations / absent[0]}.xml: absent, though listed in ImageSets/Main/{split}.txt ({len(absent)} such); "
            + ("names are listed without their ending" if ending else "copy it or take it off the list")
        )
    # Every file is read, so that the classes of all splits agree.
    parsed = {stem: _read_xml(annotations / f"{stem}.xml") for stem in stems}
    classes = sorted({obj["name"] for _, objects in parsed.values() for obj in objects})
    category = {name: number for number, name in enumerate(classes, start=1)}
    files = {os.path.splitext(name)[0]: name for name in listing(root / "JPEGImages")}
    coco: dict[str, Any] = {
        "info": {"description": f"VOC {split}"},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in category.items()],
    }
    for name in names:
        (width, height), objects = parsed[name]
        image = {"id": identity[name], "file_name": files.get(name, f"{name}.jpg"), "width": width, "height": height}
        coco["images"].append(image)
        for obj in objects:
            entry = {"image_id": identity[name], "category_id": category[obj["name"]]}
            coco["annotations"].append(entry | {key: obj[key] for key in ("bbox", "iscrowd", "truncated")})
    where = root / "ImageSets" / "Main" / f"{split}.txt"
    return DetectionDataset(f"voc:{text}", coco, root / "JPEGImages", where=where, strict=strict)


def _find_root(path: Path) -> Path:
    """`path`, or its only sub-folder with the VOC layout."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; voc:ROOT needs a folder with {', '.join(_FOLDERS)}")
    if not _lacking(path):
        return path
    children = sorted(child for child in path.iterdir() if child.is_dir())
    fitting = [child for child in children if not _lacking(child)]
    if not fitting:
        closest = min((path, *children), key=lambda folder: len(_lacking(folder)))
        raise UserError(
            f"{closest}: not a VOC folder, without {', '.join(_lacking(closest))}; it needs Annotations/NAME.xml, "
            "JPEGImages/NAME.jpg and ImageSets/Main/train.txt, which lists the names"
        )
    if len(fitting) > 1:
        raise UserError(f"{path}: several VOC folders inside; name one, e.g. {fitting[0]}")
    return fitting[0]


def _lacking(folder: Path) -> list[str]:
    return [name for name in _FOLDERS if not (folder / name).is_dir()]


def _read_split(root: Path, split: str, known: Container[str]) -> list[str]:
    """Names of the images of a split, in the order of its file."""
    folder = root / "ImageSets" / "Main"
    path = folder / f"{split}.txt"
    if not path.is_file():
        choices = sorted(file.stem for file in folder.glob("*.txt"))
        hint = nearest(split, choices) if choices else "; write the names of its images into it, one a line, no ending"
        raise UserError(f"{path}: no such split{hint}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a list of names as UTF-8 text ({error.reason}); save it again as such") from error
    names = [line.strip() for line in lines if line.strip()]
    # Class-wise lists of VOC carry a flag after the name.
    names = [name if name in known else re.sub(r"\s+-?[01]$", "", name) for name in names]
    doubled = next((name for name, count in Counter(names).items() if count > 1), None)
    if doubled is not None:
        raise UserError(f"{path}: image '{doubled}' is listed twice; take one line away")
    return names


def _read_xml(path: Path) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """((width, height), objects) of one annotation file; a missing size is (0, 0)."""
    try:
        tree = ElementTree.parse(path).getroot()
        size = (int(float(tree.findtext("size/width", "0"))), int(float(tree.findtext("size/height", "0"))))
        return size, [_read_object(element) for element in tree.iter("object")]
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: broken XML ({error}); copy the file again") from error
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a VOC annotation ({error}); mend the file") from error


def _read_object(element: ElementTree.Element) -> dict[str, Any]:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    corners = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    if None in corners:
        raise ValueError(f"object '{name}' lacks xmin, ymin, xmax or ymax")
    x1, y1, x2, y2 = (float(corner or "") for corner in corners)
    # Equal corners are a slip of the annotator, not an object of one pixel.
    width, height = (0.0 if high == low else high - low + 1 for low, high in ((x1, x2), (y1, y2)))
    return {
        "name": name,
        "bbox": [x1 - 1, y1 - 1, width, height],
        "iscrowd": int(float(element.findtext("difficult") or 0)),
        "truncated": int(float(element.findtext("truncated") or 0)),
    }
