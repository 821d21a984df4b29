"""Random choices of anchors and RoIs that depend on (seed, iteration, image) and on nothing else."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Sampling:
    """Gives each image of a forward pass its own random generator.

    Which samples an image gets does not depend on the other images in the batch, on the number of
    processes, or on anything drawn before, so that a run can be resumed or split without a trace.
    """

    def __init__(self) -> None:
        self.seed, self.iteration = 0, 0
        self._generators: dict[int, torch.Generator] = {}

    def set(self, seed: int, iteration: int) -> None:
        """Fix the choices of the next forward pass."""
        self.seed, self.iteration = seed, iteration
        self._generators = {}

    def advance(self) -> None:
        """Called after a training pass, so that a loop which never calls `set` still varies its samples."""
        self.set(self.seed, self.iteration + 1)

    def generator(self, image_id: int) -> torch.Generator:
        """The image's generator (CPU); the same object for every choice within one forward pass."""
        if image_id not in self._generators:
            key = hashlib.blake2b(f"{self.seed} {self.iteration} {image_id}".encode(), digest_size=7).digest()
            self._generators[image_id] = torch.Generator().manual_seed(int.from_bytes(key, "little"))
        return self._generators[image_id]

    def choose(self, candidates: Tensor, number: int, image_id: int) -> Tensor:
        """At most `number` of the indices `candidates` [N], at random, in their original order."""
        if len(candidates) <= number:
            return candidates
        chosen = torch.randperm(len(candidates), generator=self.generator(image_id))[:number]
        return candidates[chosen.sort().values.to(candidates.device)]

    def balanced(self, labels: Tensor, number: int, positive_fraction: float, image_id: int) -> Tensor:
        """Indices of `number` samples: positives (label > 0) up to a fraction, filled with negatives (label 0).

        Args:
            labels: [N], negative values are never sampled.

        Returns:
            sorted indices [<= number]
        """
        positives = self.choose(torch.nonzero(labels > 0).flatten(), int(number * positive_fraction), image_id)
        negatives = self.choose(torch.nonzero(labels == 0).flatten(), number - len(positives), image_id)
        return torch.cat((positives, negatives)).sort().values
