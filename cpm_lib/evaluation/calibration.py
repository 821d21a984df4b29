"""How well a score knows the quality of its box (Sec. 1, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpm_lib.evaluation.bootstrap import bootstrap_sums
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.evaluation.matching import image_positions, match, paired_iou, regions, score_columns


def score_correlation(scores: Tensor, ious: Tensor, bins: int = 10) -> dict[str, float | int | None]:
    """How well a score knows the quality of its box.

    Args:
        scores, ious: [N] each, 0..1. Pairs with a value that is not finite are left out.
        bins: see `calibration`.

    Returns:
        pearson and spearman in -1..1 (None if undefined: fewer than 2 values, or one side constant);
        calibration_error as `calibration` defines it; n.
    """
    x, y = _finite(scores, ious)
    return {
        "pearson": _pearson(x, y),
        "spearman": _pearson(_ranks(x), _ranks(y)),
        "calibration_error": calibration(x, y, bins)["error"],
        "n": len(x),
    }


def calibration(scores: Tensor, ious: Tensor, bins: int = 10) -> dict[str, Any]:
    """Whether a score, read as a prediction of the IoU, is right on average (Fig. 5).

    Bin k of `bins` holds the detections whose score lies in [k / bins, (k + 1) / bins); the last one also holds 1.
    Scores outside 0..1 (the raw output of the ISM) count in the first or last bin. The expected calibration error
    is the mean over detections of the gap of their bin, that is sum over bins of n_bin / N * |mean score - mean IoU|:
    each bin weighs as much as it has detections, and errors of opposite sign within a bin cancel.

    Args:
        scores, ious: [N] each, 0..1. Pairs with a value that is not finite are left out.

    Returns:
        error: the expected calibration error, 0..1; bias: mean score - mean IoU, -1..1 (both None for N = 0);
        bins: per bin low, high, n, and the means "score" and "iou" (None where n = 0).
    """
    x, y = _finite(scores, ious)
    bin_of = (x * bins).clamp(0, bins - 1).long()
    columns = torch.stack([torch.ones_like(x), x, y], dim=1)
    sums = torch.zeros(bins, 3, dtype=torch.float64).index_add_(0, bin_of, columns)
    gaps = (sums[:, 1] - sums[:, 2]).abs()
    table = [
        {
            "low": number / bins,
            "high": (number + 1) / bins,
            "n": int(n),
            "score": score / n if n else None,
            "iou": iou / n if n else None,
        }
        for number, (n, score, iou) in enumerate(sums.tolist())
    ]
    return {
        "error": float(gaps.sum() / len(x)) if len(x) else None,
        "bias": float((x - y).mean()) if len(x) else None,
        "bins": table,
    }


def score_quality(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    min_iou: float = 0.0,
    gamma: float | None = None,
    bins: int = 10,
) -> dict[str, dict[str, Any]]:
    """Correlation and calibration of every score with the true IoU of the final box (Fig. 1 bottom, Fig. 5).

    Args:
        detections: as for `evaluate`, with the single scores.
        min_iou: detections below this IoU are left out. 0 keeps all, also those of background, whose IoU is 0.
        gamma: adds the combinations, see `score_columns`.

    Returns:
        {score: pearson, spearman, calibration_error, n, bias, bins}; see `score_correlation` and `calibration`.
    """
    ious = match(detections, ground_truth).ious
    kept = ious >= min_iou
    result = {}
    for name, scores in score_columns(detections, gamma).items():
        table = calibration(scores[kept], ious[kept], bins)
        full = score_correlation(scores[kept], ious[kept], bins)
        result[name] = {**full, "bias": table["bias"], "bins": table["bins"]}
    return result


def hysteresis(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    min_iou: float = 0.5,
    gamma: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether a score belongs to the proposal or to the final box (the hysteresis of Sec. 1, Sec. 4.1.3).

    All boxes of a detection, from its proposal to the final one, are measured against the same object: the one of
    its class that the final box overlaps most. A detection counts if its proposal and its final box both reach
    `min_iou`, so that neither side is cut more than the other.

    Args:
        detections: as `predict` gives them: with `proposals`, `stage_boxes` where there are several stages, and
            the single scores.
        gamma: adds the combinations, see `score_columns`.

    Returns:
        n; iou, the mean per region ("proposal", "stage1", ..., "final"); scores, per score the correlations
        "pearson" and "spearman" {region: value} and "final_minus_proposal", the difference of Pearson's with its
        interval over images as `bootstrap_sums` gives it. Below 0: the score belongs to the proposal.
    """
    truth = GroundTruth.of(ground_truth)
    final, boxes = match(detections, truth), regions(detections)
    ious = {name: paired_iou(region, final.gt_boxes) for name, region in boxes.items()}
    kept = (ious["proposal"] >= min_iou) & (ious["final"] >= min_iou) & (final.gt_index >= 0)
    ious = {name: values[kept] for name, values in ious.items()}
    image = image_positions(final.image_ids[kept], truth)
    scores = {}
    for name, column in score_columns(detections, gamma).items():
        table = {region: score_correlation(column[kept], values) for region, values in ious.items()}
        scores[name] = {
            "pearson": {region: values["pearson"] for region, values in table.items()},
            "spearman": {region: values["spearman"] for region, values in table.items()},
            "final_minus_proposal": correlation_difference(
                column[kept], ious["final"], ious["proposal"], image, len(truth.image_ids), samples, seed
            ),
        }
    means = {region: float(values.mean()) if len(values) else None for region, values in ious.items()}
    return {"n": int(kept.sum()), "iou": means, "scores": scores}


def correlation_difference(
    scores: Tensor, first: Tensor, second: Tensor, image: Tensor, images: int, samples: int = 1000, seed: int = 0
) -> dict[str, float | int | None]:
    """Pearson(score, first IoU) - Pearson(score, second IoU) with its interval, see `bootstrap_sums`.

    Args:
        scores, first, second: [N]; image: [N] which image each is of, 0..images-1.
    """
    finite = scores.isfinite()
    x, a, b = (values[finite].double() for values in (scores, first, second))
    # Differences to the mean keep the sums of squares exact, and those of a constant at zero.
    x, a, b = (values - values.mean() if len(values) else values for values in (x, a, b))
    values = torch.stack([torch.ones_like(x), x, a, b, x * x, a * a, b * b, x * a, x * b], dim=1)
    return bootstrap_sums(image[finite], values, _difference_of_correlations, images, samples, seed)


def _difference_of_correlations(sums: Tensor) -> Tensor:
    x, a, b, xx, aa, bb, xa, xb = (sums[:, 1:] / sums[:, :1]).unbind(dim=1)
    spread, spread_a, spread_b = xx - x * x, aa - a * a, bb - b * b
    difference = (xa - x * a) / (spread * spread_a).sqrt() - (xb - x * b) / (spread * spread_b).sqrt()
    # A draw may repeat a single detection: without spread there is no correlation.
    defined = (spread > 1e-12) & (spread_a > 1e-12) & (spread_b > 1e-12)
    return torch.where(defined, difference, torch.nan)


def _finite(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.detach().double().reshape(-1), y.detach().double().reshape(-1)
    finite = x.isfinite() & y.isfinite()
    return x[finite], y[finite]


def _pearson(x: Tensor, y: Tensor) -> float | None:
    if len(x) < 2 or bool((x == x[0]).all()) or bool((y == y[0]).all()):
        return None
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double() - 1
    return (last - (counts.double() - 1) / 2)[inverse]
