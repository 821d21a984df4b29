"""What detections are judged against: a COCO file, a COCO dict or a data set, in one form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pycocotools.coco import COCO

from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic

Detection = dict[str, Any]
COCO_AREA_LIMITS = (32.0, 96.0)


@dataclass(frozen=True)
class GroundTruth:
    """Annotations with everything needed to read a model's labels and image order.

    Attributes:
        image_ids: in the order in which detections without `image_id` are given.
        annotations: COCO annotations as in the source (bbox xywh in pixels, extras kept).
        categories: COCO categories sorted by id.
        label_to_category: model label (1..) -> category id.
        area_limits: small and large limits as side lengths in pixels.
    """

    image_ids: list[int]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    label_to_category: dict[int, int]
    area_limits: tuple[float, float]

    @classmethod
    def of(cls, source: Any, area_limits: Sequence[float] | None = None) -> GroundTruth:
        """Read a `GroundTruth`, a COCO dict, the path of a COCO JSON file, or a `DetectionDataset`.

        Plain COCO data: label k is the k-th smallest category id, area limits are COCO's (32, 96).

        Raises:
            UserError: the file is unreadable, or lacks `images` or `categories`.
        """
        if isinstance(source, cls):
            return source
        coco, where = _read(source)
        for key in ("images", "categories"):
            if not isinstance(coco.get(key), list):
                raise UserError(f"{where}: no list '{key}'; give a COCO annotation file with images and categories")
        categories = sorted(coco["categories"], key=lambda category: category["id"])
        by_id = {label: category["id"] for label, category in enumerate(categories, start=1)}
        ids = getattr(source, "image_ids", None)
        small, large = getattr(source, "area_limits", COCO_AREA_LIMITS) if area_limits is None else area_limits
        return cls(
            image_ids=list(ids) if ids is not None else [image["id"] for image in coco["images"]],
            annotations=getattr(source, "judged", coco.get("annotations")) or [],
            categories=categories,
            label_to_category=dict(getattr(source, "label_to_category", by_id)),
            area_limits=(float(small), float(large)),
        )

    @property
    def names(self) -> dict[int, str]:
        """Category id -> class name."""
        return {category["id"]: str(category.get("name", category["id"])) for category in self.categories}

    def to_coco(self) -> COCO:
        """An indexed COCO object; annotation ids are renumbered because pycocotools takes id 0 as "no match"."""
        annotations = []
        for number, annotation in enumerate(self.annotations, start=1):
            box = [float(value) for value in annotation["bbox"]]
            annotations.append(
                {
                    "id": number,
                    "image_id": annotation["image_id"],
                    "category_id": annotation["category_id"],
                    "bbox": box,
                    "area": float(annotation.get("area", box[2] * box[3])),
                    "iscrowd": int(annotation.get("iscrowd", 0)),
                }
            )
        return _indexed(self, annotations)

    def results(self, detections: Sequence[Detection]) -> COCO:
        """Detections (see `assign_images`) as an indexed COCO result; boxes become continuous xywh (w = x2 - x1).

        Raises:
            UserError: a label without category, a box that is not finite, or nothing but NaN scores.
        """
        return _indexed(self, self._result_annotations(detections))

    def write_results(self, path: str | Path, detections: Sequence[Detection]) -> Path:
        """Write detections as COCO's server and pycocotools' `loadRes` take them, each an image_id, category_id,
        bbox (xywh) and score. A NaN score, which JSON does not know, becomes 0.

        Raises:
            UserError: as `results`, or the file cannot be written.
        """
        keys = ("image_id", "category_id", "bbox", "score")
        content = [{key: found[key] for key in keys} for found in self._result_annotations(detections)]
        for entry in content:
            if math.isnan(entry["score"]):
                entry["score"] = 0.0
        return write_atomic(path, json.dumps(content, allow_nan=False) + "\n")

    def _result_annotations(self, detections: Sequence[Detection]) -> list[dict[str, Any]]:
        annotations: list[dict[str, Any]] = []
        for image_id, detection in self.assign_images(detections):
            boxes = torch.as_tensor(detection["boxes"]).detach().cpu().double().reshape(-1, 4)
            scores = torch.as_tensor(detection["scores"]).detach().cpu().double().reshape(-1)
            labels = torch.as_tensor(detection["labels"]).detach().cpu().reshape(-1).tolist()
            if not (len(boxes) == len(scores) == len(labels)):
                raise UserError(
                    f"detections of image {image_id}: {len(boxes)} boxes, {len(scores)} scores and "
                    f"{len(labels)} labels; give one of each per detection"
                )
            if not torch.isfinite(boxes).all():
                raise UserError(f"detections of image {image_id}: a box is not finite; check the checkpoint")
            sizes = boxes[:, 2:] - boxes[:, :2]
            areas = sizes.prod(dim=1).tolist()
            xywh = torch.cat([boxes[:, :2], sizes], dim=1).tolist()
            for box, area, score, label in zip(xywh, areas, scores.tolist(), labels, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": self.category(int(label), image_id),
                        "bbox": box,
                        "area": area,
                        "iscrowd": 0,
                        "score": score,
                    }
                )
        # Single NaN scores are legal and rank last: the official conventions' unclamped fused score has them.
        if annotations and all(math.isnan(annotation["score"]) for annotation in annotations):
            raise UserError(
                "detections: every score is NaN; the training of this checkpoint diverged, or has hardly begun "
                "(with conventions.ism_clamp=false)"
            )
        return annotations

    def category(self, label: int, image_id: int) -> int:
        """The category id of a model label; UserError if the data has no such class."""
        try:
            return self.label_to_category[label]
        except KeyError:
            known = sorted(self.label_to_category)
            span = f"{known[0]}..{known[-1]}" if known else "none"
            raise UserError(
                f"detections of image {image_id}: label {label} has no category (labels of the data: {span}); "
                "evaluate on data with the classes the model was trained on"
            ) from None

    def assign_images(self, detections: Sequence[Detection]) -> list[tuple[int, Detection]]:
        """Pairs (image id, detections): by `image_id` where given, else in the order of `image_ids`.

        Raises:
            UserError: unknown or repeated image id, or another number of detections than of images.
        """
        if any("image_id" not in detection for detection in detections):
            if len(detections) not in (0, len(self.image_ids)):
                raise UserError(
                    f"{len(detections)} detections without image_id for {len(self.image_ids)} images; "
                    "give one per image in the order of the data, or add image_id"
                )
            return list(zip(self.image_ids, detections, strict=False))
        known, seen = set(self.image_ids), set()
        pairs = []
        for detection in detections:
            image_id = int(detection["image_id"])
            if image_id not in known:
                raise UserError(
                    f"detections of image {image_id}: no such image in the ground truth; use the data they were made on"
                )
            if image_id in seen:
                raise UserError(f"detections of image {image_id} are given twice; give each image once")
            seen.add(image_id)
            pairs.append((image_id, detection))
        return pairs


def _read(source: Any) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, (str, Path)):
        try:
            content = json.loads(Path(source).read_text())
        except OSError as error:
            raise UserError(
                f"{source}: cannot be read ({error.strerror}); give the path of a COCO annotation file"
            ) from error
        except ValueError as error:
            raise UserError(f"{source}: broken JSON ({error}); make or download the file again") from error
        if not isinstance(content, dict):
            raise UserError(f"{source}: not a COCO annotation file (a JSON object is needed)")
        return content, str(source)
    if isinstance(source, Mapping):
        return source, "ground truth"
    return source.coco, str(getattr(source, "name", "data set"))


def _indexed(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in truth.image_ids],
        "categories": [{"id": category["id"]} for category in truth.categories],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
