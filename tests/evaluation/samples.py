"""Made-up ground truth and detections for the evaluation tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

CATEGORY_IDS = (3, 7, 18, 90)


def make(images: int = 40, seed: int = 0, noise: float = 4.0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO data with crowds, empty images, gaps in all ids and a class without object, and noisy detections."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low

    coco: dict[str, Any] = {
        "images": [
            {"id": 100 + 7 * (images - i), "width": 200, "height": 160, "file_name": f"{i}.png"} for i in range(images)
        ],
        "categories": [{"id": c, "name": f"class {c}"} for c in reversed(CATEGORY_IDS)],
        "annotations": [],
    }
    detections = []
    for number, image in enumerate(coco["images"]):
        objects = 0 if number % 5 == 4 else int(torch.randint(1, 6, (1,), generator=generator))
        corner, size = uniform(0, 90, objects, 2), uniform(8, 110, objects, 2)
        labels = torch.randint(1, 4, (objects,), generator=generator)  # label 4 never has an object
        for k in range(objects):
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]),  # starts at 0 on purpose
                    "image_id": image["id"],
                    "category_id": CATEGORY_IDS[labels[k] - 1],
                    "bbox": [*corner[k].tolist(), *size[k].tolist()],
                    "area": float(size[k].prod()),
                    "iscrowd": int(number % 6 == 1 and k == 0),
                    "truncation": 0.5 * (k % 2),
                    "occlusion": 0.25 * (k % 3),
                }
            )
        boxes = torch.cat([corner, corner + size], dim=1)
        moved = boxes + noise * torch.randn(boxes.shape, generator=generator, dtype=torch.float64)
        boxes = torch.cat([moved, boxes + 20])
        found = torch.cat([labels, torch.randint(1, 5, (objects,), generator=generator)])
        scores = uniform(0.3, 1.0, len(boxes)) * torch.where(torch.arange(len(boxes)) < objects, 1.0, 0.7)
        detections.append({"boxes": boxes.float(), "scores": scores.float(), "labels": found, "image_id": image["id"]})
    return coco, detections


def annotation(image: int, category: int, box: Sequence[float], **extra: Any) -> dict[str, Any]:
    """An object; `box` is xyxy."""
    x1, y1, x2, y2 = box
    return {"id": 0, "image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], **extra}


def truth(*annotations: dict[str, Any], images: int = 1, classes: int = 2) -> dict[str, Any]:
    """COCO data with images 1.. and categories 1.., which are the labels."""
    return {
        "images": [{"id": number} for number in range(1, images + 1)],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, classes + 1)],
        "annotations": list(annotations),
    }


def detection(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int], image: int = 1, **parts: Any
) -> dict[str, Any]:
    """What a detector says of one image; `parts` are lists, too."""
    return {
        "image_id": image,
        "boxes": torch.tensor(boxes).float().reshape(-1, 4),
        "scores": torch.tensor(scores).float(),
        "labels": torch.tensor(labels, dtype=torch.int64),
        **{name: torch.tensor(values).float() for name, values in parts.items()},
    }


@st.composite
def scenes(draw: st.DrawFn, apart: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two images with objects of two classes, some of them crowds, and shifted, mistaken and freely placed boxes.

    Coarse numbers make equal scores and equal IoUs frequent. With `apart` no objects overlap, none is a crowd, and
    each has at most one detection, of its class.
    """
    objects, detections = [], []
    for image in (1, 2):
        boxes, labels, scores = [], [], []
        for place in range(draw(st.integers(0, 3))):
            x, y = (draw(st.integers(0, 6)) for _ in range(2))
            box = [40 * place * apart + x, y, 40 * place * apart + x + draw(st.integers(4, 14)), y + 10]
            category = draw(st.integers(1, 2))
            objects.append(annotation(image, category, box, iscrowd=int(not apart and draw(st.integers(0, 7)) == 0)))
            for _ in range(draw(st.integers(0, 1 if apart else 3))):
                shift = [draw(st.integers(-3, 3)) for _ in range(4)]
                boxes.append([float(edge + by) for edge, by in zip(box, shift, strict=True)])
                labels.append(category if apart else draw(st.sampled_from([category, category, 1, 2])))
        for _ in range(draw(st.integers(0, 2))):
            x = draw(st.integers(0, 20))
            boxes.append([200.0 * apart + x, 0, 200.0 * apart + x + 8, draw(st.integers(2, 12))])
            labels.append(draw(st.integers(1, 2)))
        scores = [draw(st.integers(1, 6)) / 8 for _ in boxes]
        detections.append(detection(boxes, scores, labels, image, cls_scores=scores))
    return truth(*objects, images=2), detections
