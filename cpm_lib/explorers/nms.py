"""NMS, step by step: hard, or soft with linear or Gaussian decay (Sec. 3.4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from cpm_lib import figures
from cpm_lib.errors import UserError
from cpm_lib.explorers.component import Explorer, photo, plain

Method = Literal["hard", "linear", "gaussian"]


def nms(
    image: Tensor,
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    objects: Tensor | None = None,
    method: Method = "hard",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-4,
    most: int = 30,
) -> Explorer:
    """Step through greedy NMS within each class: who is kept, and who goes because of whom.

    Args:
        image: float [3,H,W] in 0..1.
        boxes: [N,4] xyxy in pixels, before NMS; scores: [N] in 0..1; labels: [N], label k is ``classes[k - 1]``.
        objects: [M,4] ground truth, drawn for comparison.
        method: at the start; hard removes, soft multiplies the score as `soft_nms` does.
        iou_threshold: at the start, for hard and linear; sigma: at the start, for Gaussian.
        min_score: soft-NMS ends where the best score left is below it.
        most: only so many boxes of the best scores. Worse ones never change what hard NMS does with these.

    Raises:
        UserError: not one score and label per box, or an unknown label.
    """
    if not (boxes.shape == (len(scores), 4) and len(labels) == len(scores)):
        raise UserError(f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels; give one of each per box")
    if len(labels) and not 1 <= int(labels.min()) <= int(labels.max()) <= len(classes):
        raise UserError(f"labels from {int(labels.min())} to {int(labels.max())} for {len(classes)} classes; give 1..")
    best = scores.argsort(descending=True, stable=True)[:most]
    boxes, scores, labels = boxes[best], scores[best], labels[best]
    shown = min(len(best), 12)
    still = figures.detections(
        image, boxes[:shown], labels[:shown], scores[:shown], classes, objects, title="RoIs before NMS"
    )
    return Explorer(
        "nms",
        "Which boxes survive NMS?",
        f"The {shown} best boxes before NMS, many of them around the same object. With scripts one can step through "
        "the algorithm and change its threshold and kind.",
        {
            "image": photo(image),
            "size": [image.shape[-1], image.shape[-2]],
            "boxes": plain(boxes),
            "scores": plain(scores, 4),
            "labels": labels.tolist(),
            "classes": list(classes),
            "objects": plain(objects) if objects is not None else [],
            "method": method,
            "threshold": iou_threshold,
            "sigma": sigma,
            "min_score": min_score,
        },
        still,
    )
