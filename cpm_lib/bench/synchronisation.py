"""How often a pass makes the host wait for a GPU, and where in the source."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_PACKAGE = Path(__file__).resolve().parents[1]

_WAITING = {
    "aten::nonzero",
    "aten::_local_scalar_dense",  # item, and with it bool, int and float of a tensor
    "aten::masked_select",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::equal",
    "torchvision::nms",  # the number of boxes it keeps
}
"""Operators whose result the host must see, because it is a number for Python or the size of a tensor."""

_TO_HOST = {Tensor.tolist, Tensor.cpu, Tensor.numpy}
_FROM_HOST = {torch.tensor, torch.as_tensor}


class Synchronisations(TorchDispatchMode):
    """Counts operators that make the host wait, on any device, while it is open.

    `places` counts (operator, file:line). On a CPU an estimate: what is asked of tensors that stay there in a run on a
    GPU (targets) counts too, and copies to the GPU by `Tensor.to`, which wait as well, leave no trace.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[tuple[str, str]] = Counter()

    def note(self, operator: str) -> None:
        self.places[operator, _place()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            # In inference mode operators made of others arrive whole.
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        name = func._schema.name
        if name in _WAITING:
            self.note(name)
        elif name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            # The host does not wait where a mask is only filled with one value.
            if masks and not (name != "aten::index" and args[2].numel() == 1):
                self.note(f"{name} with a mask")
        elif name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
            self.note(name)
        return func(*args, **kwargs)


class _Copies(TorchFunctionMode):
    """Calls that copy to or from the host; on a CPU they reach no operator that `Synchronisations` could see."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        numbers = func in _FROM_HOST and kwargs.get("device") is not None and not isinstance(args[0], Tensor)
        if func in _TO_HOST or numbers:
            self.note(f"torch.{func.__name__} on a device" if numbers else f"Tensor.{func.__name__}")
        return func(*args, **kwargs)


@contextlib.contextmanager
def watching() -> Iterator[Counter[tuple[str, str]]]:
    """Counts (operator, place) while it is open; see `Synchronisations`."""
    with Synchronisations() as operators, _Copies(operators.note):
        yield operators.places


@contextlib.contextmanager
def watching_cuda() -> Iterator[Counter[tuple[str, str]]]:
    """The same by torch's own report of every wait on a GPU, transfers included."""
    places: Counter[tuple[str, str]] = Counter()

    def note(message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            places["CUDA", _place()] += 1

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _place() -> str:
    """File and line of the innermost frame in this package or torchvision, outside of the benchmarks."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if _PACKAGE in path.parents and path.parent.name != "bench":
            return f"{path.relative_to(_PACKAGE)}:{frame.f_lineno}"
        if "torchvision" in path.parts:
            return f"torchvision/{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return "benchmark"
