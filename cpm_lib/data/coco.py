"""Reading data sets in COCO format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.errors import UserError


def open_coco(text: str, *, strict: bool = False) -> DetectionDataset:
    """Open ``ROOT,SPLIT`` (the layout of COCO 2017) or ``ANN.json,IMAGE_DIR``.

    For ROOT,SPLIT the annotations are ROOT/annotations/instances_SPLIT2017.json or instances_SPLIT.json
    and the images are in ROOT/SPLIT2017 or ROOT/SPLIT. Category ids may have gaps: labels follow the
    ascending category id. Crowd objects (``iscrowd`` 1) are ignored by evaluation and never trained on.
    Evaluation takes all boxes as they are in the file, so that its metrics are those of pycocotools.

    Raises:
        UserError: absent file or folder, broken JSON, or anything `DetectionDataset` refuses.
    """
    first, comma, second = text.rpartition(",")
    if not comma or not first or not second:
        raise UserError(f"'coco:{text}' needs two parts: coco:ROOT,SPLIT or coco:ANN.json,IMAGE_DIR")
    if first.endswith(".json"):
        annotations, folder = Path(first).expanduser(), Path(second).expanduser()
    else:
        root = Path(first).expanduser()
        annotations = _first_existing(
            root / "annotations" / f"instances_{second}2017.json", root / "annotations" / f"instances_{second}.json"
        )
        folder = _first_existing(root / f"{second}2017", root / second)
    coco = read_json(annotations)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such image folder; check coco:{text}")
    return DetectionDataset(f"coco:{text}", coco, folder, where=annotations, strict=strict, judge_as_given=True)


def read_json(path: Path) -> dict[str, Any]:
    """A COCO dict from a file.

    Raises:
        UserError: absent, broken, or not a COCO object-detection file.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: annotation file cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise UserError(f"{path}: broken JSON ({error}); copy the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a COCO file; it holds a {type(content).__name__}, not an object")
    for key in ("images", "annotations", "categories"):
        value = content.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise UserError(f"{path}: not a COCO detection file; '{key}' must be a list of objects")
    return content


def _first_existing(*paths: Path) -> Path:
    return next((path for path in paths if path.exists()), paths[0])
