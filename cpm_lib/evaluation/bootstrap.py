"""Confidence intervals of AP by resampling images, paired between two detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation.coco import IOU_THRESHOLDS, evaluator_for, threshold_index
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth

_RECALL_POINTS = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
_CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class _ClassMatches:
    """Detections of one class, best score first, as pycocotools matched them.

    `image` [D]: image number; `hit`, `ignored` [T,D]: true positive, left out; `objects` [I]: objects per image.
    """

    image: torch.Tensor
    hit: torch.Tensor
    ignored: torch.Tensor
    objects: torch.Tensor


def bootstrap_difference(
    dets_a: Sequence[Detection],
    dets_b: Sequence[Detection],
    ground_truth: Any,
    samples: int = 1000,
    seed: int = 0,
    *,
    metric: str = "AP",
) -> dict[str, float | int | None]:
    """How far AP(a) - AP(b) may move if other images of the same kind had been drawn.

    Images are drawn with replacement, the same draw for both sides, so what both find hard cancels out.
    A draw counts an image twice as one step of the precision-recall curve, which is exact but for the order
    among detections of equal score.

    Args:
        dets_a, dets_b: detections as for `evaluate`, on the same images.
        metric: `AP`, or `AP50`, `AP55`, ..., `AP95`.

    Returns:
        difference, low, high (95 % percentile interval), sd, all in AP points, and samples.
        Values are None where no image holds an object.
    """
    truth = GroundTruth.of(ground_truth)
    chosen = _thresholds(metric)
    side_a, side_b = (_matches(detections, truth, chosen) for detections in (dets_a, dets_b))
    unit = torch.ones(1, len(truth.image_ids), dtype=torch.float64)
    weights = _draws(len(truth.image_ids), samples, seed)
    difference = _weighted_ap(side_a, unit) - _weighted_ap(side_b, unit)
    spread = _weighted_ap(side_a, weights) - _weighted_ap(side_b, weights)
    return {"difference": _value(difference), **_interval(spread), "samples": samples}


def paired_differences(
    rows: Sequence[tuple[int, str, Sequence[Detection]]], ground_truth: Any, samples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """What the rows of one inference say about the method, see `bootstrap_difference`.

    Args:
        rows: as `cpm_lib.evaluation.rows` returns them.

    Returns:
        the gain of the last stage over the first with the classification score, and of the best equipped score
        over the classification score at the last stage; a key is absent where there is nothing to compare.
    """
    by_classification = [(stage, found) for stage, score, found in rows if score == "cls"]
    (first, before), (last, after) = by_classification[0], by_classification[-1]
    stage, score, final = rows[-1]
    pairs = {}
    if last != first:
        pairs[f"stage {last} - stage {first}, cls"] = (after, before)
    if score != "cls":
        pairs[f"{score} - cls, stage {stage}"] = (final, after)
    return {name: bootstrap_difference(*pair, ground_truth, samples, seed) for name, pair in pairs.items()}


def bootstrap_ap(
    detections: Sequence[Detection], ground_truth: Any, samples: int = 1000, seed: int = 0, *, metric: str = "AP"
) -> dict[str, float | int | None]:
    """AP of one detector with its 95 % percentile interval over images: ap, low, high, sd, samples.

    For comparing two detectors use `bootstrap_difference`, whose interval is much narrower.
    """
    truth = GroundTruth.of(ground_truth)
    side = _matches(detections, truth, _thresholds(metric))
    unit = torch.ones(1, len(truth.image_ids), dtype=torch.float64)
    weights = _draws(len(truth.image_ids), samples, seed)
    return {"ap": _value(_weighted_ap(side, unit)), **_interval(_weighted_ap(side, weights)), "samples": samples}


def _thresholds(metric: str) -> list[int]:
    choices = {"AP": list(range(len(IOU_THRESHOLDS)))}
    choices |= {f"AP{percent}": [threshold_index(percent)] for percent in range(50, 100, 5)}
    if metric not in choices:
        raise UserError(f"metric '{metric}' cannot be bootstrapped; choose from {', '.join(choices)}")
    return choices[metric]


def _draws(images: int, samples: int, seed: int) -> torch.Tensor:
    """How often each image is drawn: [samples, images], each row sums to the number of images."""
    generator = np.random.default_rng(seed)
    shares = np.full(images, 1.0 / max(images, 1))
    return torch.from_numpy(generator.multinomial(images, shares, size=samples)).double()


def _matches(detections: Sequence[Detection], truth: GroundTruth, thresholds: list[int]) -> list[_ClassMatches]:
    evaluator = evaluator_for(detections, truth, [(0.0, 1e10)], [100])
    images = len(evaluator.params.imgIds)
    result = []
    for k in range(len(evaluator.params.catIds)):
        cells = list(enumerate(evaluator.evalImgs[k * images : (k + 1) * images]))
        found = [(number, cell) for number, cell in cells if cell is not None]
        objects = torch.zeros(images, dtype=torch.float64)
        for number, cell in found:
            objects[number] = int(np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0))
        if not objects.any():
            continue
        scores = np.concatenate([np.asarray(cell["dtScores"], dtype=float) for _, cell in found])
        # The same stable sort as pycocotools, so that equal scores keep its order.
        order = np.argsort(-scores, kind="mergesort")
        image = np.concatenate([np.full(len(cell["dtScores"]), number) for number, cell in found])[order]
        matched = np.concatenate([cell["dtMatches"] for _, cell in found], axis=1)[thresholds][:, order] > 0
        ignored = np.concatenate([cell["dtIgnore"] for _, cell in found], axis=1)[thresholds][:, order] > 0
        result.append(
            _ClassMatches(
                image=torch.from_numpy(image.astype(np.int64)),
                hit=torch.from_numpy(matched & ~ignored),
                ignored=torch.from_numpy(ignored),
                objects=objects,
            )
        )
    return result


def _weighted_ap(classes: list[_ClassMatches], weights: torch.Tensor) -> torch.Tensor:
    """AP in 0..100 for each row of image counts `weights` [B,I]; NaN where no object is drawn. Equal to
    pycocotools for counts of one."""
    if not classes:
        return torch.full((len(weights),), float("nan"), dtype=torch.float64)
    per_class = torch.stack([_class_ap(matches, weights) for matches in classes])
    return 100.0 * torch.nanmean(per_class, dim=0)


def _class_ap(matches: _ClassMatches, weights: torch.Tensor) -> torch.Tensor:
    objects = weights @ matches.objects
    chunk = max(1, _CHUNK_ELEMENTS // max(1, len(matches.image)))
    parts = [
        _chunk_ap(matches, part[:, matches.image], total)
        for part, total in zip(weights.split(chunk), objects.split(chunk), strict=True)
    ]
    return torch.where(objects > 0, torch.cat(parts), torch.nan)


def _chunk_ap(matches: _ClassMatches, counts: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """Mean over IoU thresholds and recall points, for counts [B,D] of each detection and objects [B]."""
    total = torch.zeros(len(counts), dtype=torch.float64)
    # Only crowds make a detection ignored, so nearly always one cumulative sum serves all thresholds.
    shared = None if matches.ignored.any() else counts.cumsum(dim=1)
    for hit, ignored in zip(matches.hit, matches.ignored, strict=True):
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
        total += torch.where(reached, values, 0.0).mean(dim=1)
    return total / len(matches.hit)


def _value(values: torch.Tensor) -> float | None:
    number = float(values[0])
    return None if np.isnan(number) else number


def _interval(values: torch.Tensor) -> dict[str, float | None]:
    defined = values[~values.isnan()].numpy()
    if defined.size < 2:
        return {"low": None, "high": None, "sd": None}
    low, high = np.percentile(defined, [2.5, 97.5])
    return {"low": float(low), "high": float(high), "sd": float(defined.std(ddof=1))}
