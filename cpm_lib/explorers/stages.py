"""Stages: real detections on their way through the cascade (Fig. 3, Eq. 1, Table 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from cpm_lib import evaluation, figures
from cpm_lib import figure_style as draw
from cpm_lib.boxes import extend_regions
from cpm_lib.data import DetectionDataset
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.explorers.component import Explorer, plain
from cpm_lib.explorers.crop import crop
from cpm_lib.shipped import Example


def stages(
    dataset: DetectionDataset,
    detections: Sequence[Detection],
    *,
    mapping_ratios: Sequence[float] = (2.0, 1.5, 1.25),
    map_size: int = 56,
    count: int = 6,
    min_iou: float = 0.4,
) -> Explorer:
    """Follow one of a few detections from its proposal through the stages, with the region of each and the IoU.

    Args:
        detections: of `dataset`, with "proposals" and "stage_boxes", as `evaluation.predict` returns them.
        mapping_ratios: of the stages.
        count: how many detections to choose from, see `by_gain`.
        min_iou: least IoU of a proposal with its object.
    """
    chosen = by_gain(dataset, detections, count, min_iou)
    items = []
    for example in chosen:
        found, truth = example.found, example.truth
        path = torch.cat((found["proposals"][example.row, None], found["stage_boxes"][example.row])).cpu().float()
        regions = [extend_regions(box[None], ratio) for box, ratio in zip(path, mapping_ratios, strict=False)]
        name = dataset.classes[int(found["labels"][example.row]) - 1]
        view = crop(example.image, torch.cat((truth[None].float(), path, *regions)))
        items.append({"name": name, **view, "truth": plain(truth), "boxes": plain(path)})
    return Explorer(
        "stages",
        "From the proposal through the stages",
        "One object in several panels: its proposal and the box after each stage, with their IoU. With scripts a "
        "detection and a stage can be chosen.",
        {"items": items, "ratios": list(mapping_ratios), "map_size": map_size},
        _still(chosen, mapping_ratios),
    )


def by_gain(
    dataset: DetectionDataset, detections: Sequence[Detection], count: int = 6, min_iou: float = 0.4
) -> list[Example]:
    """Detections of different objects, evenly spread from the largest gain of IoU to the largest loss.

    Of each object its highest scored detection of its class counts, if its proposal has at least `min_iou`.
    """
    final = evaluation.match(detections, dataset)
    start = evaluation.match(detections, dataset, boxes="proposals")
    same = (start.ious >= min_iou) & (start.gt_index == final.gt_index)
    best: dict[int, int] = {}
    for place in final.scores.argsort(descending=True, stable=True).tolist():
        if same[place]:
            best.setdefault(int(final.gt_index[place]), place)
    gain = final.ious - start.ious
    order = sorted(best.values(), key=lambda place: -float(gain[place]))
    spread = torch.linspace(0, len(order) - 1, min(count, len(order))).round().int().tolist()
    chosen = []
    for place in (order[step] for step in spread):
        number = dataset.image_ids.index(int(final.image_ids[place]))
        chosen.append(Example(dataset[number][0], detections[number], int(final.rows[place]), final.gt_boxes[place]))
    return chosen


def _still(chosen: Sequence[Example], mapping_ratios: Sequence[float]) -> Figure:
    if not chosen:
        with draw.style():
            figure = draw.card(6.0, 0.8)
            figure.text(0.5, 0.5, "no detection overlaps an object of its class", ha="center", va="center")
        return figure
    image, found, row, truth = chosen[0]
    boxes = found["stage_boxes"][row]
    return figures.stages(image, boxes, truth, found["proposals"][row], mapping_ratios=mapping_ratios)
