"""Statistics over detections that follow from sums, as `bootstrap_sums` draws them over images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cpm_lib.evaluation.bootstrap import Interval, bootstrap_sums


class Images:
    """Draws over the images of one data set.

    Args:
        number: how many images there are.
    """

    def __init__(self, number: int, samples: int = 1000, seed: int = 0) -> None:
        self.number, self.samples, self.seed = number, samples, seed

    def interval(self, image: Tensor, values: Tensor, statistic: Callable[[Tensor], Tensor]) -> Interval:
        """See `bootstrap_sums`: image [N], values [N, K], statistic [B, K] -> [B]."""
        return bootstrap_sums(image, values, statistic, self.number, self.samples, self.seed)

    def mean(self, image: Tensor, values: Tensor) -> Interval:
        """Mean of `values` [N]."""
        return self.interval(image, torch.stack([torch.ones_like(values), values], dim=1), _ratio)

    def mean_difference(self, image: Tensor, values: Tensor, first: Tensor, second: Tensor) -> Interval:
        """Mean of `values` [N] where `first` [N] holds minus that where `second` does."""
        sides = [torch.stack([side.double(), side * values], dim=1) for side in (first, second)]
        return self.interval(image, torch.cat(sides, dim=1), lambda sums: _ratio(sums[:, :2]) - _ratio(sums[:, 2:]))

    def pearson(self, image: Tensor, scores: Tensor, ious: Tensor) -> Interval:
        """Correlation of `scores` with `ious`, [N] each."""
        return self.interval(image, _moments(scores, ious), _correlation)

    def pearson_difference(self, image: Tensor, scores: Tensor, others: Tensor, ious: Tensor) -> Interval:
        """Correlation of `scores` with `ious` minus that of `others`, [N] each."""
        values = torch.cat([_moments(scores, ious), _moments(others, ious)], dim=1)
        return self.interval(image, values, lambda sums: _correlation(sums[:, :6]) - _correlation(sums[:, 6:]))

    def calibration_difference(
        self, image: Tensor, scores: Tensor, others: Tensor, ious: Tensor, bins: int = 10
    ) -> Interval:
        """Expected calibration error (see `calibration`) of `scores` minus that of `others`, [N] each."""
        columns = [torch.ones(len(ious), 1)]
        for values in (scores, others):
            place = (values * bins).clamp(0, bins - 1).long()
            gap = torch.zeros(len(values), bins, dtype=torch.float64)
            columns.append(gap.scatter_(1, place[:, None], (values - ious).double()[:, None]))

        def statistic(sums: Tensor) -> Tensor:
            gaps = sums[:, 1:].abs().reshape(len(sums), 2, bins).sum(dim=2)
            return (gaps[:, 0] - gaps[:, 1]) / sums[:, 0]

        return self.interval(image, torch.cat(columns, dim=1), statistic)


def _ratio(sums: Tensor) -> Tensor:
    """[B, 2] (count, total) -> mean; NaN where the count is 0."""
    return torch.where(sums[:, 0] > 0, sums[:, 1] / sums[:, 0], torch.nan)


def _moments(x: Tensor, y: Tensor) -> Tensor:
    """[N, 6]. Differences to the mean keep the sums of squares exact."""
    x, y = (values.double() - values.double().mean() for values in (x, y))
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)


def _correlation(sums: Tensor) -> Tensor:
    x, y, xx, yy, xy = (sums[:, 1:] / sums[:, :1]).unbind(dim=1)
    spread_x, spread_y = xx - x * x, yy - y * y
    defined = (spread_x > 1e-12) & (spread_y > 1e-12)
    return torch.where(defined, (xy - x * y) / (spread_x * spread_y).sqrt(), torch.nan)
