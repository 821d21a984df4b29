"""torch.compile for backbone and FPN, the part of a detector that does the same for every image."""

from __future__ import annotations

import torch
from torch import Tensor

from cpm_lib.errors import UserError
from cpm_lib.model.detector import Detector


def compile_backbone(model: Detector, backend: str = "inductor") -> None:
    """Let torch.compile translate backbone and FPN, in place; weights and their names stay as they are.

    For detecting: the first image waits for the translation, about half a minute on two cores, the first one of a
    second size once more, for one that fits all sizes. Results may differ in rounding.

    Args:
        backend: of torch.compile.

    Raises:
        UserError: torch.compile does not work here, e.g. there is no C++ compiler.
    """
    try:
        torch.compile(_something, backend=backend)(next(model.parameters()).new_ones(2))
    # Whatever a compiler may lack has its own error.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"--compile: torch.compile does not work here ({lines[0]}); install a C++ compiler, or leave it out"
        ) from error
    model.backbone.compile(backend=backend)


def _something(x: Tensor) -> Tensor:
    return x * 2 + 1
