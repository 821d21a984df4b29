"""`cpm bench loading`: how many images per second the data pipeline delivers, by number of workers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import torch

from cpm_lib.bench import measuring
from cpm_lib.bench.comparison import machine
from cpm_lib.config import Config
from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.data.loading import training_batches
from cpm_lib.data.transforms import training

AHEAD = 2
"""Batches that each worker of torch's loader prepares ahead."""


def loading(
    config: Config,
    dataset: DetectionDataset,
    *,
    workers: Sequence[int] = (0, 1, 2),
    batches: int = 8,
    repeats: int = 5,
) -> dict[str, Any]:
    """Time of an augmented training batch that nobody works on, for each number of workers.

    Args:
        batches: timed in each repetition, after those that were under way when the workers had started.

    Returns:
        Rows by number of workers: `median_s` per batch, `images_per_s`, `start_s` until the first batch, `ratio` to
        no workers; and two rows by image, in this process: decoding, and augmentation with resizing. `decoding_share`
        is the first over both.
    """
    size = config.solver.images_per_batch
    rows = [_workers_row(config, dataset, number, batches, repeats, size) for number in workers]
    alone = next((row for row in rows if row["workers"] == 0), None)
    for row in rows:
        if alone is not None and row is not alone:
            row["against"], row["ratio"] = alone["name"], row["median_s"] / alone["median_s"]
    decoding, augmentation = _by_image(config, dataset, min(len(dataset), size * batches), repeats)
    rows += [decoding, augmentation]
    return {
        **machine(torch.device("cpu")),
        "work": "loading",
        "data": dataset.name,
        "profile": config.profile,
        "images_per_batch": size,
        "decoding_share": decoding["median_s"] / (decoding["median_s"] + augmentation["median_s"]),
        "rows": rows,
    }


def _workers_row(
    config: Config, dataset: DetectionDataset, workers: int, batches: int, repeats: int, size: int
) -> dict[str, Any]:
    under_way = AHEAD * workers
    seconds, starts = [], []
    for repeat in range(repeats):
        # At the end as many batches are under way as at the beginning, so that none is counted for nothing.
        wanted = 1 + batches + 2 * under_way
        start = time.perf_counter()
        found = training_batches(dataset, config, seed=repeat, stop=wanted, workers=workers)
        next(found)
        starts.append(time.perf_counter() - start)
        for _ in itertools.islice(found, under_way):
            pass
        start = time.perf_counter()
        for _ in itertools.islice(found, batches):
            pass
        seconds.append((time.perf_counter() - start) / batches)
        found.close()  # type: ignore[attr-defined]
    row = measuring.row(f"{workers} workers", seconds, workers=workers, start_s=min(starts))
    return row | {"images_per_s": size / row["median_s"]}


def _by_image(
    config: Config, dataset: DetectionDataset, images: int, repeats: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    transform = training(config.input, config.conventions)
    decoded, augmented = [], []
    torch.manual_seed(0)
    for _ in range(repeats):
        start, reading = time.perf_counter(), 0.0
        for index in range(images):
            before = time.perf_counter()
            image, target = dataset[index]
            reading += time.perf_counter() - before
            transform(image, target)
        total = time.perf_counter() - start
        decoded.append(reading / images)
        augmented.append((total - reading) / images)
    return (
        measuring.row("decoding, per image", decoded, images_per_s=images * repeats / (sum(decoded) * images)),
        measuring.row("augmentation, per image", augmented, images_per_s=images * repeats / (sum(augmented) * images)),
    )
