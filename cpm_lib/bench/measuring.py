"""Clocks and operations of one pass, and of the parts of one."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from cpm_lib.bench.case import Running
from cpm_lib.complexity import UNKNOWN_TO_TORCH, deform_conv_flops
from cpm_lib.progress import progress

T = TypeVar("T")
Call = tuple[str, Any, str]
"""Name of a part, an object, and the name of the object's method that does the part's work."""


@contextlib.contextmanager
def threads(number: int | None) -> Iterator[None]:
    """As many threads of torch while the context is open; None: as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Pass(NamedTuple):
    """Times of one pass, in seconds."""

    wall: float
    cpu: float
    """Of all threads of this process together; on a busy machine steadier than `wall`."""
    parts: dict[str, float]
    """Wall time by part."""
    cpu_parts: dict[str, float]


REST = "rest"
"""What no named part accounts for: losses and sampling in training, sorting and bookkeeping at test."""


def one_pass(running: Running, calls: Sequence[Call] = ()) -> Pass:
    """Run a case once, until the device has done it all. On a GPU `calls` make the host wait at both ends of each."""

    def clock() -> float:
        synchronise(running.device)
        return time.perf_counter()

    # What others left behind must not be collected on this one's time.
    gc.collect()
    with divided(calls, clock) as parts, divided(calls, time.process_time) as cpu_parts:
        wall, cpu = clock(), time.process_time()
        running()
        wall, cpu = clock() - wall, time.process_time() - cpu
    parts[REST], cpu_parts[REST] = wall - sum(parts.values()), cpu - sum(cpu_parts.values())
    return Pass(wall, cpu, parts, cpu_parts)


def alternate(first: Callable[[], T], second: Callable[[], T], *, repeats: int) -> tuple[list[T], list[T]]:
    """`repeats` results of both, called in the order A B B A A B ..., so that a slow minute meets both."""
    results: tuple[list[T], list[T]] = ([], [])
    for number in progress(range(repeats), desc="in turns", unit="pair"):
        sides = ((first, results[0]), (second, results[1]))
        for call, found in sides if number % 2 == 0 else sides[::-1]:
            found.append(call())
    return results


def ratios(first: Sequence[Pass], second: Sequence[Pass]) -> dict[str, float | None]:
    """First over second, pair by pair of `alternate`: medians over all pairs, and over those of each order."""
    wall = [a.wall / b.wall for a, b in zip(first, second, strict=True)]
    return {
        "ratio": statistics.median(wall),
        "ratio_first": statistics.median(wall[::2]),
        "ratio_second": statistics.median(wall[1::2]) if len(wall) > 1 else None,
        "cpu_ratio": statistics.median(a.cpu / b.cpu for a, b in zip(first, second, strict=True)),
    }


def row(name: str, walls: Sequence[float], **values: Any) -> dict[str, Any]:
    """One row of a benchmark's result, in the form that all share; `values` adds to it or fills it in.

    Args:
        walls: wall time of each repetition, in seconds.
    """
    median = statistics.median(walls)
    content: dict[str, Any] = {
        "name": name,
        "median_s": median,
        "repeats": len(walls),
        "peak_mb": None,
        "flops": None,
        "ratio": None,
        "against": None,
        "low_s": min(walls),
        "high_s": max(walls),
        "walls_s": list(walls),
        **values,
    }
    content["flops_per_s"] = content["flops"] / median if content["flops"] and median > 0 else None
    return content


@contextlib.contextmanager
def divided(calls: Iterable[Call], reading: Callable[[], float]) -> Iterator[dict[str, float]]:
    """How much of `reading` (a clock, a counter) goes into each part while the context is open.

    A part is charged what its calls use, less what other parts called inside of them use.
    """
    used: dict[str, float] = {}
    inner: list[float] = []
    changed: list[tuple[Any, str, Any]] = []

    def watch(part: str, owner: Any, method: str) -> None:
        original = getattr(owner, method)

        def call(*arguments: Any, **options: Any) -> Any:
            inner.append(0.0)
            start = reading()
            try:
                return original(*arguments, **options)
            finally:
                total = reading() - start
                used[part] = used.get(part, 0.0) + total - inner.pop()
                if inner:
                    inner[-1] += total

        changed.append((owner, method, vars(owner).get(method)))
        setattr(owner, method, call)

    try:
        for part, owner, method in calls:
            watch(part, owner, method)
        yield used
    finally:
        for owner, method, before in reversed(changed):
            if before is None:
                delattr(owner, method)
            else:
                setattr(owner, method, before)


# ---- operations


def _roi_align_backward_flops(
    _gradient: Any, rois: tuple[int, ...], _scale: float, height: int, width: int, _batch: int, channels: int,
    _rows: int, _columns: int, samples: int, *_: Any, out_shape: Any = None, **__: Any,
) -> int:  # fmt: skip
    return 2 * 4 * samples * samples * height * width * rois[0] * channels


def _deform_conv_backward_flops(
    gradient: tuple[int, ...], features: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any
) -> int:
    # Once for the gradient of the weights, once for that of features and offsets.
    return 2 * deform_conv_flops(features, weight, out_shape=gradient)


_COUNTED: dict[Any, Callable[..., int]] = {
    **UNKNOWN_TO_TORCH,
    torch.ops.torchvision._roi_align_backward: _roi_align_backward_flops,
    torch.ops.torchvision._deform_conv2d_backward: _deform_conv_backward_flops,
}


def flop_counter() -> FlopCounterMode:
    """Counts floating point operations (a multiply-add as 2) of convolutions, matrix products, RoIAlign and deformable
    convolutions, forward and backward; nothing else counts. What `grid.recompute` does again counts again."""
    return FlopCounterMode(display=False, custom_mapping=_COUNTED)


PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}


def matrix_product(device: torch.device, bf16: bool, repeats: int) -> dict[str, Any]:
    """A large square matrix product: what the device reaches in practice."""
    side = PRODUCT_SIDE[device.type]
    dtype = torch.bfloat16 if bf16 else torch.float32
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))

    times = []
    for _ in range(repeats + 2):
        synchronise(device)
        start = time.perf_counter()
        left @ right
        synchronise(device)
        times.append(time.perf_counter() - start)
    return row(f"matrix product {side}", times[2:], flops=2 * side**3)
