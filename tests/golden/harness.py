"""Loads recorded arrays, compares ours with them, and notices arrays nobody looked at."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RELATIVE = 1e-5
_CHUNK = 1 << 20
"""Values made at a time: what is in the cache is made fastest."""


def folder() -> Path:
    """Where the recorded files are: ``CPM_GOLDEN_DIR``, else beside this module."""
    return Path(os.environ.get("CPM_GOLDEN_DIR", Path(__file__).parent))


@dataclass
class Recording:
    """One file: reads arrays, and collects how ours compare.

    `exact` is for integers and geometry, `close` for floats (1e-5 relative to the larger of the two numbers),
    `within` for a bound of its own; there the relative difference is that to the largest value of the array.
    """

    name: str
    arrays: dict[str, NDArray]
    compared: list[str] = field(default_factory=list)
    not_compared: dict[str, str] = field(
        default_factory=lambda: {"torch_version": "says which torch recorded the file"}
    )
    inputs: set[str] = field(default_factory=set)
    mismatches: list[str] = field(default_factory=list)
    max_abs: float = 0.0
    max_rel: float = 0.0
    ours: list[tuple[str, NDArray, float, float]] = field(default_factory=list, repr=False)
    """What was compared, with the arguments of the comparison."""

    def tensor(self, key: str) -> Tensor:
        """An array that goes into our code."""
        self.inputs.add(key)
        return torch.from_numpy(np.array(self.arrays[key]))

    def exact(self, key: str, ours: Tensor) -> None:
        self._compare(key, ours, 0.0)

    def within(self, key: str, ours: Tensor, absolute: float) -> None:
        """For the results of long calculations: pixels, scores, and maps whose values are sums that cancel."""
        self._compare(key, ours, 0.0, absolute)

    def largest(self, key: str) -> float:
        """The largest absolute value of an array."""
        return float(np.abs(self.arrays[key]).max(initial=0))

    def require(self, condition: bool, what: str) -> None:
        """For what no array says by itself."""
        if not condition:
            self.mismatches.append(what)

    def close(self, key: str, ours: Tensor, relative: float = RELATIVE) -> None:
        self._compare(key, ours, relative)

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.arrays if key.startswith(prefix)]

    def unseen(self) -> list[str]:
        """Arrays that are neither an input, nor compared, nor excused."""
        return sorted(set(self.arrays) - set(self.compared) - set(self.not_compared) - self.inputs)

    @property
    def ok(self) -> bool:
        return not self.mismatches and not self.unseen()

    def against(self, arrays: dict[str, NDArray]) -> Recording:
        """The same results of ours compared with other arrays; nothing is calculated again."""
        other = Recording(self.name, arrays)
        for one in self.ours:
            other._compare_array(*one)
        return other

    def _compare(self, key: str, ours: Tensor, relative: float, absolute: float = 0.0) -> None:
        self.ours.append((key, ours.detach().numpy().astype(np.float64), relative, absolute))
        self._compare_array(*self.ours[-1])

    def _compare_array(self, key: str, mine: NDArray, relative: float, absolute: float) -> None:
        self.compared.append(key)
        theirs = np.asarray(self.arrays[key], dtype=np.float64)
        if theirs.shape != mine.shape:
            self.mismatches.append(f"{key}: shape {mine.shape} instead of {theirs.shape}")
            return
        if not theirs.size:
            return
        nan = np.isnan(theirs)
        wrong_nan = bool((nan != np.isnan(mine)).any())
        difference = np.abs(np.where(nan, 0, theirs) - np.where(nan, 0, mine))
        difference = np.where(theirs == mine, 0, difference)
        # A sum that cancels is as inexact as its terms: values near zero are measured against the array's scale.
        scale = np.maximum(np.abs(theirs), np.abs(mine))
        scale = np.maximum(scale, (1.0 if absolute else 1e-2) * np.nanmax(np.abs(theirs)))
        ratio = np.nanmax(np.divide(difference, scale, out=np.zeros_like(difference), where=difference > 0))
        self.max_abs, self.max_rel = max(self.max_abs, float(difference.max())), max(self.max_rel, float(ratio))
        far = difference.max() > absolute if absolute else ratio > relative
        if wrong_nan or far:
            self.mismatches.append(f"{key}: differs by {difference.max():.3g}, {ratio:.3g} relative")


def rule(key: str, *shape: int, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    """The reproducible pseudo-random numbers in -1..1 that stand for weights and features (float32).

    `offset + scale * v`, computed in float64.
    """
    values = np.empty(int(np.prod(shape)), dtype=np.float32)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        # Unsigned 32-bit numbers wrap around by themselves.
        state = np.arange(start, start + len(part), dtype=np.uint32)
        state = state * np.uint32(2654435761) + np.uint32(zlib.crc32(key.encode()))
        for _ in range(2):
            state ^= state >> np.uint32(16)
            state *= np.uint32(0x45D9F3B)
        state ^= state >> np.uint32(16)
        part[:] = offset + scale * (2 * (state / 2.0**32) - 1)
    return torch.from_numpy(values).reshape(shape)


def image_names(recording: Recording) -> list[str]:
    """im0, im1, ... of a file with several images."""
    found = (re.match(r"im(\d+)_", key) for key in recording.arrays)
    return [f"im{number}" for number in sorted({int(match[1]) for match in found if match})]


Check = Callable[[Recording], None]
CHECKS: dict[str, Check] = {}


def check(file: str) -> Callable[[Check], Check]:
    """Register the comparison of one recorded file."""

    def register(function: Check) -> Check:
        CHECKS[file] = function
        return function

    return register


def run(file: str, arrays: dict[str, NDArray] | None = None) -> Recording:
    """Compare one file; `arrays` replaces what is in it."""
    if arrays is None:
        with np.load(folder() / f"{file}.npz") as stored:
            arrays = dict(stored)
    recording = Recording(file, arrays)
    with convolutions_as_matrix_products():
        CHECKS[file](recording)
    return recording


@contextlib.contextmanager
def convolutions_as_matrix_products() -> Iterator[None]:
    """Without oneDNN's direct kernels, which round more and on each kind of processor differently."""
    torch.backends.mkldnn.set_flags(False)
    try:
        with torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        torch.backends.mkldnn.set_flags(True)
