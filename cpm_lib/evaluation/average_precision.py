"""Average precision from COCO's matching: of the detections as they are, of re-drawn images, of mended errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpm_lib.evaluation.coco import ALL_AREAS, IOU_THRESHOLDS, evaluator_for
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth

# numpy's rounding, as pycocotools has it: a recall of exactly 0.35 must reach the same points.
_RECALL_POINTS = torch.from_numpy(np.linspace(0.0, 1.0, 101))
_CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Judged:
    """Detections as COCO's matching judges them: N in the order of `match`, T IoU thresholds.

    Attributes:
        image: [N] position of the image among the sorted image ids.
        categories: [N] category id; scores: [N] float64.
        hit: [T,N] finds an object.
        ignored: [T,N] counts neither for nor against: on a crowd, or beyond the best 100 of its class and image.
        found: [T,N] position of the object hit in the ground truth's `annotations`; -1 for all but hits.
        objects: per category id the objects of every image [I]; crowds are no objects.
    """

    image: Tensor
    categories: Tensor
    scores: Tensor
    hit: Tensor
    ignored: Tensor
    found: Tensor
    objects: dict[int, Tensor]

    @property
    def false(self) -> Tensor:
        """[T,N] counts against: the false positives."""
        return ~(self.hit | self.ignored)

    def ranking(self) -> Tensor:
        """[N] detections, best score first; equal scores in pycocotools' order, NaN last."""
        return torch.from_numpy(np.lexsort((self.image.numpy(), -self.scores.numpy())))


def judge(
    detections: Sequence[Detection],
    truth: GroundTruth,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    area: tuple[float, float] = ALL_AREAS,
) -> Judged:
    """Run COCO's matching over detections as for `evaluate`; its errors are those of `GroundTruth.results`.

    Args:
        thresholds: [T] IoUs of a hit.
        area: square pixels of the objects that count, see `area_ranges`.
    """
    evaluator = evaluator_for(detections, truth, [area], [100], thresholds)
    results = evaluator.cocoDt.dataset["annotations"]
    place = {image_id: number for number, image_id in enumerate(evaluator.params.imgIds)}
    cells = [cell for cell in evaluator.evalImgs if cell is not None]
    empty = np.zeros((len(thresholds), 0))
    # Results and annotations are numbered from 1, in their order.
    rows = torch.from_numpy(np.concatenate([np.zeros(0, int), *(np.asarray(c["dtIds"], int) for c in cells)]) - 1)
    matched = torch.from_numpy(np.concatenate([empty, *(cell["dtMatches"] for cell in cells)], axis=1)).long() - 1
    left_out = torch.from_numpy(np.concatenate([empty, *(cell["dtIgnore"] for cell in cells)], axis=1)).bool()
    found = torch.full((len(thresholds), len(results)), -1)
    found[:, rows] = torch.where(left_out, -1, matched)
    ignored = torch.ones(len(thresholds), len(results), dtype=torch.bool)
    ignored[:, rows] = left_out
    objects = {int(category): torch.zeros(len(place), dtype=torch.float64) for category in evaluator.params.catIds}
    for cell in cells:
        objects[cell["category_id"]][place[cell["image_id"]]] = int(np.count_nonzero(cell["gtIgnore"] == 0))
    return Judged(
        image=torch.tensor([place[result["image_id"]] for result in results], dtype=torch.int64),
        categories=torch.tensor([result["category_id"] for result in results], dtype=torch.int64),
        scores=torch.tensor([result["score"] for result in results], dtype=torch.float64),
        hit=found >= 0,
        ignored=ignored,
        found=found,
        objects=objects,
    )


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class, best score first, as pycocotools matched them.

    `image` [D]: image number; `hit`, `ignored` [T,D]: true positive, left out; `objects` [I]: objects per image.
    """

    image: Tensor
    hit: Tensor
    ignored: Tensor
    objects: Tensor


def class_matches(judged: Judged, thresholds: Sequence[int] | None = None) -> list[ClassMatches]:
    """One entry per class that has an object.

    Args:
        thresholds: positions in `judged.hit`; default: all.
    """
    chosen = list(range(len(judged.hit)) if thresholds is None else thresholds)
    ranking = judged.ranking()
    hit, ignored = judged.hit[chosen][:, ranking], judged.ignored[chosen][:, ranking]
    image, categories = judged.image[ranking], judged.categories[ranking]
    result = []
    for category, objects in judged.objects.items():
        if objects.any():
            own = ((categories == category) & ~ignored.all(dim=0)).nonzero()[:, 0]
            result.append(ClassMatches(image[own], hit[:, own], ignored[:, own], objects))
    return result


def average_precision(judged: Judged) -> list[float | None]:
    """AP in 0..100 at each threshold of `judged`, as pycocotools has it; None where there is no object."""
    unit = torch.ones(1, max((len(objects) for objects in judged.objects.values()), default=0), dtype=torch.float64)
    values = [float(weighted_ap(class_matches(judged, [row]), unit)) for row in range(len(judged.hit))]
    return [None if np.isnan(value) else value for value in values]


def weighted_ap(classes: list[ClassMatches], weights: Tensor) -> Tensor:
    """AP in 0..100 for each row of image counts `weights` [B,I]; NaN where no object is drawn. Equal to
    pycocotools for counts of one."""
    return weighted_aps(classes, weights).mean(dim=1)


def weighted_aps(classes: list[ClassMatches], weights: Tensor) -> Tensor:
    """`weighted_ap` at each IoU threshold alone, [B,T]."""
    if not classes:
        return torch.full((len(weights), 1), float("nan"), dtype=torch.float64)
    per_class = torch.stack([_class_ap(matches, weights) for matches in classes])
    return 100.0 * torch.nanmean(per_class, dim=0)


def _class_ap(matches: ClassMatches, weights: Tensor) -> Tensor:
    objects = weights @ matches.objects
    chunk = max(1, _CHUNK_ELEMENTS // max(1, len(matches.image)))
    parts = [
        _chunk_ap(matches, part[:, matches.image], total)
        for part, total in zip(weights.split(chunk), objects.split(chunk), strict=True)
    ]
    return torch.where(objects[:, None] > 0, torch.cat(parts), torch.nan)


def _chunk_ap(matches: ClassMatches, counts: Tensor, objects: Tensor) -> Tensor:
    """Mean over the recall points at each IoU threshold, [B,T], for counts [B,D] of each detection, objects [B]."""
    means = torch.zeros(len(counts), len(matches.hit), dtype=torch.float64)
    # Only crowds make a detection ignored, so nearly always one cumulative sum serves all thresholds.
    shared = None if matches.ignored.any() else counts.cumsum(dim=1)
    for row, (hit, ignored) in enumerate(zip(matches.hit, matches.ignored, strict=True)):
        column = hit.nonzero()[:, 0]
        if not len(column):
            continue
        # Precision and recall only have to be known at hits: recall rises there and precision peaks there.
        found = counts[:, column].cumsum(dim=1)
        seen = (counts * ~ignored).cumsum(dim=1) if shared is None else shared
        precision = found / (seen[:, column] + np.spacing(1))
        envelope = precision.flip(1).cummax(dim=1).values.flip(1)
        recall = found / objects.clamp(min=1.0)[:, None]
        place = torch.searchsorted(recall, _RECALL_POINTS.expand(len(counts), -1).contiguous())
        reached = place < len(column)
        values = envelope.gather(1, place.clamp(max=len(column) - 1))
        means[:, row] = torch.where(reached, values, 0.0).mean(dim=1)
    return means
