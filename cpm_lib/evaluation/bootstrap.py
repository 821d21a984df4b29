"""Confidence intervals by resampling images: of AP, paired between two detectors, and of other statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation.average_precision import class_matches, judge, weighted_ap
from cpm_lib.evaluation.coco import IOU_THRESHOLDS, threshold_index
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth


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
    chosen = IOU_THRESHOLDS[_thresholds(metric)]
    side_a, side_b = (class_matches(judge(detections, truth, chosen)) for detections in (dets_a, dets_b))
    unit = torch.ones(1, len(truth.image_ids), dtype=torch.float64)
    weights = _draws(len(truth.image_ids), samples, seed)
    difference = weighted_ap(side_a, unit) - weighted_ap(side_b, unit)
    spread = weighted_ap(side_a, weights) - weighted_ap(side_b, weights)
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
    side = class_matches(judge(detections, truth, IOU_THRESHOLDS[_thresholds(metric)]))
    unit = torch.ones(1, len(truth.image_ids), dtype=torch.float64)
    weights = _draws(len(truth.image_ids), samples, seed)
    return {"ap": _value(weighted_ap(side, unit)), **_interval(weighted_ap(side, weights)), "samples": samples}


def bootstrap_sums(
    image: torch.Tensor,
    values: torch.Tensor,
    statistic: Callable[[torch.Tensor], torch.Tensor],
    images: int,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """How far a difference that follows from sums over detections may move if other images had been drawn.

    Args:
        image: [N] which image each detection is of, 0..images-1.
        values: [N,K] what is summed.
        statistic: takes sums [B,K] and gives the difference [B]; NaN where it is undefined.

    Returns:
        difference, low, high (95 % percentile interval), sd and samples, as `bootstrap_difference`.
    """
    sums = torch.zeros(images, values.shape[1], dtype=torch.float64).index_add_(0, image, values.double())
    spread = statistic(_draws(images, samples, seed) @ sums)
    return {"difference": _value(statistic(sums.sum(dim=0)[None])), **_interval(spread), "samples": samples}


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


def _value(values: torch.Tensor) -> float | None:
    number = float(values[0])
    return None if np.isnan(number) else number


def _interval(values: torch.Tensor) -> dict[str, float | None]:
    defined = values[~values.isnan()].numpy()
    if defined.size < 2:
        return {"low": None, "high": None, "sd": None}
    low, high = np.percentile(defined, [2.5, 97.5])
    return {"low": float(low), "high": float(high), "sd": float(defined.std(ddof=1))}
