"""Batches for training, a pure function of (seed, iteration), and batches for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cpm_lib.config import Config
from cpm_lib.data.dataset import DetectionDataset
from cpm_lib.data.transforms import Transform, training
from cpm_lib.errors import UserError

Batch = tuple[list[Tensor], list[dict[str, Any]]]
Sample = tuple[int, int]
"""Index into the data set and seed of the augmentation."""


class BatchPlan:
    """Which images form which batch, computed from (seed, iteration) alone.

    An epoch is a fresh permutation cut into batches. Landscape and portrait images are kept apart, so
    that little of a padded batch is padding; one batch per epoch may mix them. The fewer than
    `batch_size` images left over differ from epoch to epoch. A data set smaller than a batch is repeated.

    Args:
        portrait: for each image whether it is higher than wide.
        batch_size: images per batch, over all processes.
    """

    def __init__(self, portrait: Sequence[bool], batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise UserError(f"solver.images_per_batch is {batch_size}; it must be at least 1")
        self._portrait = np.asarray(portrait, dtype=bool)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self.batches_per_epoch = max(1, len(self._portrait) // batch_size)

    def batch(self, iteration: int) -> list[int]:
        """Indices of the images of an iteration (0-based)."""
        epoch, position = divmod(iteration, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._cut(epoch))
        return self._epoch[1][position]

    def _cut(self, epoch: int) -> list[list[int]]:
        size, count = self._batch_size, len(self._portrait)
        generator = np.random.default_rng([self._seed, epoch])
        if count < size:
            rounds = [generator.permutation(count) for _ in range(-(-size // count))]
            return [np.concatenate(rounds)[:size].tolist()]
        order = generator.permutation(count)
        tall = self._portrait[order]
        batches, rest = [], []
        for group in (order[tall], order[~tall]):
            whole = len(group) - len(group) % size
            batches += group[:whole].reshape(-1, size).tolist()
            rest += group[whole:].tolist()
        if len(rest) >= size:
            batches.append(rest[:size])
        return [batches[index] for index in generator.permutation(len(batches))]


class _Samples(Dataset[Any]):
    """Decodes and augments; hands a UserError on as a value, because workers garble its message."""

    def __init__(self, dataset: DetectionDataset, transform: Transform | None) -> None:
        self._dataset, self._transform = dataset, transform

    def __getitem__(self, sample: Sample) -> tuple[Tensor, dict[str, Any]] | UserError:
        index, seed = sample
        try:
            image, target = self._dataset[index]
        except UserError as error:
            return error
        if self._transform is None:
            return image, target
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._transform(image, target)


def training_batches(
    dataset: DetectionDataset,
    config: Config,
    *,
    seed: int,
    start: int = 0,
    stop: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> Iterator[Batch]:
    """Augmented batches of the iterations start..stop-1: lists of images and of targets.

    What an iteration sees (images, order, augmentation) depends on (seed, iteration) only: not on
    `start`, `workers` or the global random state. A batch of ``config.solver.images_per_batch`` images
    is cut into `world` equal parts in order; this process gets part `rank`. With `pin` tensors are in page-locked
    memory, from which a GPU copies while the CPU goes on.

    Raises:
        UserError: the batch cannot be cut into `world` equal parts, no image has an object (`input.skip_empty`), or
            an image cannot be decoded.
    """
    size = config.solver.images_per_batch
    if size % world:
        raise UserError(f"solver.images_per_batch is {size}: not a multiple of the {world} processes; change either")
    used = [index for index in range(len(dataset)) if not config.input.skip_empty or _has_object(dataset, index)]
    if not used:
        raise UserError(f"{dataset.name}: no image with an object above one pixel; set input.skip_empty=false")
    portrait = [height > width for width, height in map(dataset.size, used)]
    plan = BatchPlan(portrait, size, seed)
    share = size // world
    positions = range(rank * share, (rank + 1) * share)

    def samples() -> Iterator[list[Sample]]:
        for iteration in range(start, stop):
            batch = plan.batch(iteration)
            yield [(used[batch[position]], _sample_seed(seed, iteration, position)) for position in positions]

    return _load(_Samples(dataset, training(config.input, config.conventions)), samples(), workers, pin)


def evaluation_batches(
    dataset: DetectionDataset,
    batch_size: int,
    *,
    workers: int = 0,
    indices: Sequence[int] | None = None,
    pin: bool = False,
) -> Iterator[Batch]:
    """Unchanged images and targets in data-set order, or in the order of `indices`.

    Raises:
        UserError: an image cannot be decoded.
    """
    chosen = list(range(len(dataset)) if indices is None else indices)
    batches = ([(index, 0) for index in chosen[i : i + batch_size]] for i in range(0, len(chosen), batch_size))
    return _load(_Samples(dataset, None), batches, workers, pin)


def _has_object(dataset: DetectionDataset, index: int) -> bool:
    boxes = dataset.target(index)["boxes"]
    return bool((boxes[:, 2:] - boxes[:, :2] > 1).all(dim=1).any())


def _sample_seed(seed: int, iteration: int, position: int) -> int:
    return int(np.random.SeedSequence([seed, iteration, position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _load(samples: _Samples, batches: Iterator[list[Sample]], workers: int, pin: bool) -> Iterator[Batch]:
    # Its own generator: the loader would otherwise draw from the global random state.
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        collate_fn=list,
        generator=torch.Generator(),
    )
    for batch in loader:
        for item in batch:
            if isinstance(item, UserError):
                raise item
        images, targets = zip(*batch, strict=True)
        yield list(images), list(targets)
