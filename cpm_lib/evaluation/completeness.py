"""Scores of incomplete objects: cut by the border of the image, or covered (Sec. 3.3.2, Fig. 6)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cpm_lib.errors import UserError
from cpm_lib.evaluation.bootstrap import bootstrap_sums
from cpm_lib.evaluation.calibration import correlation_difference, score_correlation
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth
from cpm_lib.evaluation.matching import image_positions, match, object_boxes, paired_iou, score_columns

Share = Literal["truncation", "occlusion", "truncated", "either"]
"""A share in 0..1 of the full object that is missing: outside the image, covered, VOC's flag (0 or 1) for an object
that is not wholly in sight, or the larger of truncation and occlusion."""
Row = dict[str, float | int | None]


def score_by_truncation(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    by: Share = "either",
    min_iou: float = 0.8,
    edges: Sequence[float] = (0.0, 0.1, 0.3, 1.0),
) -> list[Row]:
    """Mean scores of well placed detections, grouped by how much of the object is missing (Sec. 3.3.2, Fig. 6).

    Args:
        detections: as for `evaluate`; parts (`cls_scores`, `iou_scores`, `rsm_scores`) are averaged where present.
        ground_truth: its annotations carry the share.
        by: which share groups.
        min_iou: only detections whose true IoU is above it, so that groups differ in completeness, not in fit.
        edges: group limits; the first group holds complete objects (share <= edges[0]), the others (low, high].

    Returns:
        One dict per group: low, high, n, iou (mean true IoU) and the mean of each score present; None where n = 0.

    Raises:
        UserError: the annotations carry no such share.
    """
    truth = GroundTruth.of(ground_truth)
    matches = match(detections, truth)
    columns = {"iou": matches.ious, **score_columns(detections)}
    good = (matches.ious > min_iou) & (matches.gt_index >= 0)
    group = _bins(_shares(truth, by)[matches.gt_index], edges)
    groups = []
    for number, (low, high) in enumerate(_limits(edges)):
        groups.append({"low": max(low, 0.0), "high": high, **_means(columns, good & (group == number))})
    return groups


def score_by_completeness(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    by: Share = "truncation",
    edges: Sequence[float] = (0.0, 0.1, 0.3, 1.0),
    iou_edges: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    gamma: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean scores of complete and incomplete objects at equal true IoU (Fig. 6).

    `by` "truncation" leaves out covered objects (occlusion above edges[0]) and the other way round, so that the
    complete objects are complete in both senses.

    The comparison at equal IoU gives complete objects the IoU distribution of the incomplete ones: the difference
    incomplete - complete is taken within each IoU bin and averaged with the number of incomplete detections as
    weights. Bins without detections on either side are left out.

    Args:
        detections: as for `evaluate`, with the single scores.
        edges: group limits, see `score_by_truncation`.
        iou_edges: limits of the IoU bins (low, high].
        gamma: adds the combinations, see `score_columns`.

    Returns:
        cells: per group and IoU bin low, high, iou_low, iou_high, n, iou and the mean of each score;
        at_equal_iou: per incomplete group low, high and, per score, the difference with its interval over images
        as `bootstrap_sums` gives it (below 0: incomplete objects score lower).

    Raises:
        UserError: the annotations carry no such share.
    """
    truth = GroundTruth.of(ground_truth)
    matches, scores = match(detections, truth), score_columns(detections, gamma)
    group = _bins(_shares(truth, by, limit=edges[0])[matches.gt_index], edges)
    # Rounding of single precision must not push a perfect box out of the last bin.
    fit = _bins(matches.ious.clamp(max=iou_edges[-1]), iou_edges) - 1
    group[matches.gt_index < 0] = -1
    columns = {"iou": matches.ious, **scores}
    cells = []
    for (number, (low, high)), (place, (iou_low, iou_high)) in itertools.product(
        enumerate(_limits(edges)), enumerate(itertools.pairwise(iou_edges))
    ):
        means = _means(columns, (group == number) & (fit == place))
        cells.append({"low": max(low, 0.0), "high": high, "iou_low": iou_low, "iou_high": iou_high, **means})
    image, images, bins = image_positions(matches.image_ids, truth), len(truth.image_ids), len(iou_edges) - 1
    rows = []
    for number, (low, high) in list(enumerate(_limits(edges)))[1:]:
        chosen = ((group == 0) | (group == number)) & (fit >= 0) & (fit < bins)
        found = {}
        for name, values in scores.items():
            kept = chosen & values.isfinite()
            side = (group[kept] == number).long()
            one_hot = torch.nn.functional.one_hot(side * bins + fit[kept], 2 * bins)
            sums = torch.cat([one_hot, one_hot * values[kept, None]], dim=1)
            found[name] = bootstrap_sums(image[kept], sums, _standardised_difference, images, samples, seed)
        rows.append({"low": low, "high": high, "scores": found})
    return {"by": by, "cells": cells, "at_equal_iou": rows}


def _standardised_difference(sums: Tensor) -> Tensor:
    """[B, 2 (count, score) x 2 (complete, incomplete) x bins] -> [B]."""
    counts, totals = sums.reshape(len(sums), 2, 2, -1).unbind(dim=1)
    weight = torch.where((counts > 0).all(dim=1), counts[:, 1], 0.0)
    mean = totals / counts.clamp(min=1.0)
    return (weight * (mean[:, 1] - mean[:, 0])).sum(dim=1) / weight.sum(dim=1)


def overall_appearance(
    detections: Sequence[Detection],
    ground_truth: Any,
    *,
    min_truncation: float = 0.0,
    min_iou: float = 0.5,
    gamma: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether a score means the visible box or the whole object's (Sec. 3.3.2: "overall appearance").

    Args:
        detections: as for `evaluate`, with `iou_scores`, the ISM's, and the other single scores.
        ground_truth: annotations with `truncation` and `full_bbox` (xywh before the cut), as `shapes:` has them.
        min_truncation: an object counts if a larger share than this lies outside the image.
        min_iou: least IoU of a detection with the visible box.
        gamma: adds the combinations, see `score_columns`.

    Returns:
        n detections of cut objects; iou_visible, iou_full: mean IoU with either box; scores, per score "mean",
        and for "visible" and "full" pearson, spearman and "error" (mean |score - IoU|), and
        "visible_minus_full", the difference of Pearson's with its interval over images as `bootstrap_sums` gives
        it. Below 0: the score follows the whole object.

    Raises:
        UserError: the annotations carry no such keys.
    """
    truth = GroundTruth.of(ground_truth)
    _require(truth, ("truncation", "full_bbox"))
    matches = match(detections, truth)
    kept = (_shares(truth, "truncation")[matches.gt_index] > min_truncation) & (matches.ious >= min_iou)
    kept &= matches.gt_index >= 0
    whole = object_boxes(truth, "full_bbox").float()[matches.gt_index[kept]]
    ious = {"visible": matches.ious[kept], "full": paired_iou(matches.boxes[kept], whole)}
    image = image_positions(matches.image_ids[kept], truth)
    scores = {}
    for name, column in score_columns(detections, gamma).items():
        values = column[kept]
        table: dict[str, Any] = {"mean": _mean(values)}
        for box, iou in ious.items():
            full = score_correlation(values, iou)
            table[box] = {
                "pearson": full["pearson"],
                "spearman": full["spearman"],
                "error": _mean((values - iou).abs()),
            }
        table["visible_minus_full"] = correlation_difference(
            values, ious["visible"], ious["full"], image, len(truth.image_ids), samples, seed
        )
        scores[name] = table
    means = {f"iou_{box}": _mean(values) for box, values in ious.items()}
    return {"n": int(kept.sum()), **means, "scores": scores}


def _shares(truth: GroundTruth, by: Share, limit: float | None = None) -> Tensor:
    """Share missing of each annotation, [A + 1] with 0 in the end for "no object". With `limit`, NaN where the
    other kind of incompleteness exceeds it."""
    keys = ("truncation", "occlusion") if by == "either" else (by,)
    _require(truth, keys)
    shares = [max(float(annotation[key]) for key in keys) for annotation in truth.annotations]
    other = {"truncation": "occlusion", "occlusion": "truncation"}.get(by)
    if limit is not None and other is not None:
        for number, annotation in enumerate(truth.annotations):
            if float(annotation.get(other, 0.0)) > limit:
                shares[number] = torch.nan
    return torch.tensor([*shares, 0.0])


def _require(truth: GroundTruth, keys: Iterable[str]) -> None:
    for key in keys:
        without = [annotation for annotation in truth.annotations if key not in annotation]
        if without:
            raise UserError(
                f"ground truth: annotation of image {without[0].get('image_id')} without '{key}'; "
                "use data that records it, such as shapes:"
            )


def _limits(edges: Sequence[float]) -> list[tuple[float, float]]:
    return [(-1.0, edges[0]), *itertools.pairwise(edges)]


def _bins(values: Tensor, edges: Sequence[float]) -> Tensor:
    """Which of `_limits(edges)` holds each value, (low, high] each; len(edges) above the last one, -1 for NaN."""
    place = torch.bucketize(values, torch.tensor(list(edges), dtype=values.dtype))
    return torch.where(values.isnan(), -1, place)


def _means(columns: dict[str, Tensor], chosen: Tensor) -> Row:
    return {"n": int(chosen.sum()), **{name: _mean(values[chosen]) for name, values in columns.items()}}


def _mean(values: Tensor) -> float | None:
    """Of the finite values; None without any: single NaN scores are legal (official conventions)."""
    values = values[values.isfinite()]
    return float(values.mean()) if len(values) else None
