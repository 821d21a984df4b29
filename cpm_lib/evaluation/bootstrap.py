"""Confidence intervals by resampling images: of AP, paired between two detectors, and of other statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation.average_precision import class_matches, judge, weighted_aps
from cpm_lib.evaluation.coco import area_ranges, threshold_index
from cpm_lib.evaluation.ground_truth import Detection, GroundTruth

SINGLE = tuple(f"AP{percent}" for percent in range(50, 100, 5))
"""AP at one IoU threshold."""
Interval = dict[str, float | int | None]


class Resampling:
    """AP of many rows over one set of draws of the images, so that whatever is computed from them is paired.

    Images are drawn with replacement. A draw counts an image twice as one step of the precision-recall curve, which
    is exact but for the order among detections of equal score.

    Args:
        ground_truth: as for `evaluate`.
        rows: name -> detections as for `evaluate`, all on the same images.
    """

    def __init__(
        self, ground_truth: Any, rows: Mapping[str, Sequence[Detection]], samples: int = 1000, seed: int = 0
    ) -> None:
        self.truth, self.rows = GroundTruth.of(ground_truth), rows
        images = len(self.truth.image_ids)
        unit = torch.ones(1, images, dtype=torch.float64)
        self._weights = torch.cat([unit, _draws(images, samples, seed)])
        self._areas = area_ranges(self.truth.area_limits)
        self._known: dict[tuple[str, str], torch.Tensor] = {}

    def ap(self, row: str, metric: str = "AP") -> torch.Tensor:
        """AP in 0..100 of a row for the images as they are and for each draw, [1 + samples]; NaN without an object.

        Sums, differences and quotients of such vectors go into `summary`.

        Args:
            metric: `AP`; `APS`, `APM`, `APL`; or `AP50`, `AP55`, ..., `AP95`.

        Raises:
            UserError: no such metric.
        """
        area = metric if metric in self._areas else "AP"
        if area == "AP" and metric not in ("AP", *SINGLE):
            choices = ", ".join((*self._areas, *SINGLE))
            raise UserError(f"metric '{metric}' cannot be bootstrapped; choose from {choices}")
        if (row, area) not in self._known:
            judged = judge(self.rows[row], self.truth, area=self._areas[area])
            self._known[row, area] = weighted_aps(class_matches(judged), self._weights)
        values = self._known[row, area]
        if metric in SINGLE:
            return values[:, min(threshold_index(int(metric[2:])), values.shape[1] - 1)]
        return values.mean(dim=1)


def summary(values: torch.Tensor) -> Interval:
    """What `Resampling` says of a quantity: the first of `values` [1 + samples] is that of the images as they are.

    Returns:
        difference, low, high (95 % percentile interval), sd, and samples. None where it is undefined.
    """
    return {"difference": _value(values), **_interval(values[1:]), "samples": len(values) - 1}


def bootstrap_difference(
    dets_a: Sequence[Detection],
    dets_b: Sequence[Detection],
    ground_truth: Any,
    samples: int = 1000,
    seed: int = 0,
    *,
    metric: str = "AP",
) -> Interval:
    """How far AP(a) - AP(b) may move if other images of the same kind had been drawn.

    Both sides see the same draws, so what both find hard cancels out; see `Resampling`.

    Args:
        dets_a, dets_b: detections as for `evaluate`, on the same images.
        metric: `AP`; `APS`, `APM`, `APL`; or `AP50`, `AP55`, ..., `AP95`.

    Returns:
        difference, low, high (95 % percentile interval), sd, all in AP points, and samples.
        Values are None where no image holds an object.
    """
    sides = Resampling(ground_truth, {"a": dets_a, "b": dets_b}, samples, seed)
    return summary(sides.ap("a", metric) - sides.ap("b", metric))


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
) -> Interval:
    """AP of one detector with its 95 % percentile interval over images: ap, low, high, sd, samples.

    For comparing two detectors use `bootstrap_difference`, whose interval is much narrower.
    """
    found = summary(Resampling(ground_truth, {"": detections}, samples, seed).ap("", metric))
    return {"ap": found.pop("difference"), **found}


def bootstrap_sums(
    image: torch.Tensor,
    values: torch.Tensor,
    statistic: Callable[[torch.Tensor], torch.Tensor],
    images: int,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
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
