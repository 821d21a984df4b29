"""The switches of the CPU's fast paths; each stands beside its operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import ModuleType

from cpm_lib import _torchvision
from cpm_lib.model import backbone, grid_branch, strided_gradient, winograd

SWITCHES: dict[str, tuple[ModuleType, str]] = {
    "RoIAlign by rows": (_torchvision, "FAST_CPU"),
    "folded affines": (backbone, "FOLD_AFFINES"),
    "Winograd": (winograd, "ENABLED"),
    "strided gradients as products": (strided_gradient, "ENABLED"),
    "channels-first upsampling": (grid_branch, "CHANNELS_FIRST"),
}
"""What a fast path does -> its switch: a module and a name in it."""


@contextlib.contextmanager
def without(names: Iterable[str] = SWITCHES) -> Iterator[None]:
    """These of `SWITCHES`, by default all, are off while the context is open."""
    switches = [SWITCHES[name] for name in names]
    before = [getattr(module, switch) for module, switch in switches]
    try:
        for module, switch in switches:
            setattr(module, switch, False)
        yield
    finally:
        for (module, switch), value in zip(switches, before, strict=True):
            setattr(module, switch, value)
