"""What keeps AP down: every error in one bin, and the AP that mending this bin alone would give back.

The idea and its thresholds are those of TIDE (Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpm_lib.errors import UserError
from cpm_lib.evaluation.average_precision import Judged, average_precision, judge
from cpm_lib.evaluation.coco import IOU_THRESHOLDS, threshold_index
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.evaluation.matching import overlaps

BACKGROUND = 0.1
"""Below this IoU with every object a box is background."""


@dataclass(frozen=True)
class Nearest:
    """The objects that each detection overlaps most, N in the order of `match`; crowds are left out.

    Attributes:
        own_iou, own: [N] IoU (float64) and position in the annotations among objects of the detection's class.
        other_iou, other: [N] the same among objects of other classes; 0 and -1 where there are none.
    """

    own_iou: Tensor
    own: Tensor
    other_iou: Tensor
    other: Tensor


def nearest(detections: Sequence[Detection], truth: GroundTruth) -> Nearest:
    """See `Nearest`."""
    none, integers = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    parts: list[tuple[Tensor, ...]] = [(none, integers, none, integers)]
    for image in overlaps(detections, truth):
        own_class = image.own_class(truth)
        parts.append((*image.best(own_class), *image.best(~own_class)))
    return Nearest(*(torch.cat(column) for column in zip(*parts, strict=True)))


def error_bins(
    detections: Sequence[Detection], ground_truth: Any, *, threshold: float = 0.5, background: float = BACKGROUND
) -> dict[str, Any]:
    """Count the errors of each kind and the AP they cost.

    A false positive belongs to the first bin that fits, IoU being its best with an object of that kind:

    - duplicate: IoU >= threshold with an object of its class, which a better ranked detection has found already.
    - classification: IoU >= threshold with an object of another class.
    - localisation: background <= IoU < threshold with an object of its class.
    - both: background <= IoU < threshold with an object of another class.
    - background: everything else.

    An object is missed if no detection finds it and no classification or localisation error lies on it.

    Mended means: the class (classification) or the box (localisation) becomes that of the object, and of several
    detections of one object only the best ranked stays; duplicates, background and "both" are removed; missed
    objects are no longer looked for, and a class of which all objects are missed counts as 100.
    No bin can lower AP, but the gains of several bins do not add up.

    Args:
        detections, ground_truth: as for `evaluate`. Detections on crowds, and those beyond the best 100 of a class
            and image, are no errors.
        threshold: IoU of a hit, one of 0.5, 0.55, ..., 0.95.
        background: see above; 0 < background < threshold.

    Returns:
        threshold, background, objects (their number), ap (0..100, at `threshold`; None without an object),
        counts {"hit", the bins above, "missed"} and dap, the gain in AP per bin (None without an object).

    Raises:
        UserError: impossible thresholds, or what `evaluate` raises.
    """
    row = threshold_index(round(100 * threshold))
    if not 0 <= row < len(IOU_THRESHOLDS) or abs(IOU_THRESHOLDS[row] - threshold) > 1e-9:
        raise UserError(f"error bins: threshold {threshold} is not one of 0.5, 0.55, ..., 0.95; choose one of these")
    if not 0 < background < threshold:
        raise UserError(f"error bins: background {background} must lie between 0 and the threshold {threshold}")
    truth = GroundTruth.of(ground_truth)
    judged, near = judge(detections, truth, IOU_THRESHOLDS[[row]]), nearest(detections, truth)
    bins = _bins(judged.false[0], near, float(IOU_THRESHOLDS[row]), background)
    categories = torch.tensor([annotation["category_id"] for annotation in truth.annotations], dtype=torch.int64)
    missed = _missed(truth, judged, bins, near)
    mended = {name: _without(judged, bins[name]) for name in ("duplicate", "both", "background")}
    mended["classification"] = _moved(judged, bins["classification"], near.other, categories)
    mended["localisation"] = _moved(judged, bins["localisation"], near.own, categories)
    ap = average_precision(judged)[0]
    better = {name: average_precision(mended[name])[0] for name in bins}
    better["missed"] = _ap_without(judged, missed, categories)
    # Rounded, and + 0.0 against -0.0: what rounding errors leave is no gain.
    dap = {name: None if ap is None or value is None else round(value - ap, 9) + 0.0 for name, value in better.items()}
    counts = {"hit": int(judged.hit.sum()), **{name: int(chosen.sum()) for name, chosen in bins.items()}}
    return {
        "threshold": threshold,
        "background": background,
        "objects": int(sum(float(objects.sum()) for objects in judged.objects.values())),
        "ap": ap,
        "counts": {**counts, "missed": len(missed)},
        "dap": dap,
    }


def _bins(false: Tensor, near: Nearest, threshold: float, background: float) -> dict[str, Tensor]:
    """[N] bool per bin; every false positive is in exactly one."""
    conditions = {
        "duplicate": near.own_iou >= threshold,
        "classification": near.other_iou >= threshold,
        "localisation": near.own_iou >= background,
        "both": near.other_iou >= background,
        "background": torch.ones_like(false),
    }
    result, left = {}, false
    for name, condition in conditions.items():
        result[name] = left & condition
        left = left & ~condition
    return result


def _missed(truth: GroundTruth, judged: Judged, bins: dict[str, Tensor], near: Nearest) -> Tensor:
    """Positions of the missed objects in the annotations."""
    known = set(truth.image_ids)
    objects = [
        number
        for number, annotation in enumerate(truth.annotations)
        if not annotation.get("iscrowd", 0)
        and annotation["image_id"] in known
        and annotation["category_id"] in judged.objects
    ]
    explained = torch.cat(
        [judged.found[0][judged.hit[0]], near.other[bins["classification"]], near.own[bins["localisation"]]]
    )
    candidates = torch.tensor(objects, dtype=torch.int64)
    return candidates[~torch.isin(candidates, explained)]


def _without(judged: Judged, removed: Tensor) -> Judged:
    return dataclasses.replace(judged, hit=judged.hit & ~removed, ignored=judged.ignored | removed)


def _moved(judged: Judged, moved: Tensor, target: Tensor, categories: Tensor) -> Judged:
    """`moved` [N] become hits on their `target` [N]; of all detections on one object the best ranked stays."""
    place = torch.where(moved, target, judged.found[0])
    ranking = judged.ranking()
    ranked = ranking[(place >= 0)[ranking]]
    best = torch.full((len(categories),), len(place)).scatter_reduce_(
        0, place[ranked], torch.arange(len(ranked)), reduce="amin"
    )
    hit = torch.zeros_like(moved)
    hit[ranked[best[best < len(ranked)]]] = True
    named = judged.categories.clone()
    named[moved] = categories[target[moved]]
    lost = (place >= 0) & ~hit
    return dataclasses.replace(judged, categories=named, hit=hit[None], ignored=judged.ignored | lost[None])


def _ap_without(judged: Judged, missed: Tensor, categories: Tensor) -> float | None:
    counts = {category: float(objects.sum()) for category, objects in judged.objects.items()}
    left = dict(counts)
    for category in categories[missed].tolist():
        left[category] -= 1
    # One number per class is enough: all images count once.
    objects = {category: torch.zeros_like(judged.objects[category]) for category in counts}
    for category, number in left.items():
        objects[category][:1] = number
    emptied = sum(1 for category, number in counts.items() if number > 0 and left[category] == 0)
    remaining = sum(1 for number in left.values() if number > 0)
    ap = average_precision(dataclasses.replace(judged, objects=objects))[0]
    if not emptied:
        return ap
    return (100.0 * emptied + remaining * (ap or 0.0)) / (emptied + remaining)
