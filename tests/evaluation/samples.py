"""Made-up ground truth and detections for the evaluation tests."""

from __future__ import annotations

from typing import Any

import torch

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
