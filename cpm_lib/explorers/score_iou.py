"""Score against IoU: every dot is a detection to look at (Fig. 1 bottom, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cpm_lib import evaluation, figures
from cpm_lib.data import DetectionDataset
from cpm_lib.errors import UserError
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.explorers.component import Explorer, photo, plain

SCORES = {"cls": "cls_scores", "ISM": "iou_scores", "RSM": "rsm_scores"}


def score_iou(
    detections: Sequence[Detection],
    dataset: DetectionDataset,
    *,
    gamma: float = 0.8,
    min_iou: float = 0.5,
    most: int = 360,
) -> Explorer:
    """Pick a detection and see its box and its scores; choose the score that is drawn over the true IoU.

    Nothing is chosen by its looks: the first images of the data set are taken whole, as many as `most` allows.

    Args:
        detections: of `dataset`, as `evaluation.predict` gives them, with `cls_scores`.
        gamma: of the fused score, Eq. 4.
        min_iou: least IoU of a detection with an object of its class, 0..1; below it there is no object to fit.
        most: detections at most, but at least one image that has any. A page grows by about 1 kB for each.

    Raises:
        UserError: an image has no classification scores.
    """
    without = [
        str(found.get("image_id", number)) for number, found in enumerate(detections) if "cls_scores" not in found
    ]
    if without:
        raise UserError(f"detections of image {without[0]}: no 'cls_scores'; use a detector that reports them")
    matches = evaluation.match(detections, dataset)
    columns = evaluation.score_columns(detections)
    good = torch.nonzero((matches.ious >= min_iou) & (matches.gt_index >= 0)).flatten()
    # Whole images, in the order of the data set.
    ids, counts = matches.image_ids[good].unique_consecutive(return_counts=True)
    images = max(1, int((counts.cumsum(0) <= most).sum()))
    good = good[: int(counts[:images].sum())]
    good = good[matches.ious[good].argsort(stable=True)]
    places = [dataset.image_ids.index(image_id) for image_id in ids[:images].tolist()]
    position = {image_id: number for number, image_id in enumerate(ids[:images].tolist())}
    found = matches.select(good)
    names = {name: columns[key][good] for name, key in SCORES.items() if key in columns}
    title = "classification score over true IoU"
    return Explorer(
        "score_iou",
        "Does the score know how well the box fits?",
        "Scatter of the classification score over the true IoU of each detection. With scripts another score can be "
        "chosen, and each dot shows its box in the picture.",
        {
            "gamma": gamma,
            "min_iou": min_iou,
            "classes": list(dataset.classes),
            "images": [photo(dataset[place][0]) for place in places],
            "sizes": [dataset.size(place) for place in places],
            "image": [position[image_id] for image_id in found.image_ids.tolist()],
            "label": found.labels.tolist(),
            "box": plain(found.boxes, 1),
            "truth": plain(found.gt_boxes, 1),
            "iou": plain(found.ious, 4),
            "scores": {name: _known(values) for name, values in names.items()},
        },
        figures.score_against_iou(names["cls"], found.ious, title),
    )


def _known(scores: torch.Tensor) -> list[float | None]:
    """Rounded; None for NaN, which raw IoU scores can end as."""
    return [None if value != value else value for value in plain(scores, 4)]
