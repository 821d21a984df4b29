"""Evaluation by several processes: each looks at its share of the images, the main one gets all detections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cpm_lib import evaluation
from cpm_lib.training import distributed

Detections = list[dict[str, Any]]


def predict(
    model: Any, dataset: Any, *, predictor: Callable[..., Detections] = evaluation.predict, **options: Any
) -> Detections:
    """What `predictor` gives for the whole data set, in its order; nothing in other processes than the main one.

    Process r of n takes the images r, r + n, ..., so that shares differ by at most one image and slow images,
    which often stand together, are spread.

    Args:
        predictor: `evaluation.predict` or `evaluation.predict_augmented`; `options` are its own.

    Raises:
        UserError: in all processes, if an image of one share cannot be read.
    """
    world = distributed.world()
    if world == 1:
        return predictor(model, dataset, **options)
    distributed.share_buffers(model)
    own = range(distributed.rank(), len(dataset), world)
    shares = distributed.collect(lambda: predictor(model, dataset, indices=own, **options))
    if not distributed.is_main():
        return []
    merged: list[Any] = [None] * len(dataset)
    for rank, share in enumerate(shares):
        merged[rank::world] = share
    return merged
